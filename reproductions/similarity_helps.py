"""Does similarity between tasks help? Rotated, permuted and partitioned MNIST, with every control.

Five tasks of 20,000 images each, 784-300-300-10 with per-task batch norm, Adam 1e-3, one epoch, tasks in an order drawn
from the seed. Mask scores are influenced throughout training (transfer) or only started (initialised) from prior tasks:
the most similar one by each similarity, the least similar, a random one, the one before, the mean of all, and, where
the truth is known, the truly nearest; per layer and one for all layers; beside classic training with the same steps and
with twice as many.

    python reproductions/similarity_helps.py --data ../shared/data/mnist --work runs/similarity-helps

The same command goes on where it stopped. Writes ``reproductions/results/similarity_helps.json``, ``.md`` and figures.
"""

from __future__ import annotations

from on_mnist import RESULTS, given, keep_figures, leave, recorded

from commonweight.base.text import Grid
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study

NAME = "similarity_helps"
FIGURES = ("curves", "gains", "similarity-classic")
SCENARIOS = ("rotated", "permuted", "partitioned")
CONTROLS = ("random", "least_similar-probed", "previous", "mean")
BY_SIMILARITY = ("first_layer", "every_layer", "probed", "probed-one_prior")


def approaches(scenario: str) -> tuple[str, ...]:
    choices = (*BY_SIMILARITY, *CONTROLS, *(("oracle",) if scenario == "rotated" else ()))
    return (
        "classic",
        "classic-double",
        *(f"{kind}-{choice}" for kind in ("transfer", "initialised") for choice in choices),
    )


def plan(data: str, scenario: str, seeds: int, rows: int) -> Plan:
    return Plan(
        data=data,
        scenario=scenario,
        tasks=5,
        approaches=approaches(scenario),
        seeds=seeds,
        rows=None if scenario == "partitioned" else rows,
        inference=(),
    )


def table(scenario: str, study) -> Grid:
    rows = []
    for name in study.runs:
        if name == "classic":
            rows.append((name, str(study.budget(name)), study.average_accuracy(name).short(), "–", "–", "–"))
            continue
        kind = name.split("-")[0]
        random = f"{kind}-random"
        against = study.gain(name) - study.gain(random) if random in study.runs and name != random else None
        rows.append((
            name,
            str(study.budget(name)),
            study.average_accuracy(name).short(),
            study.gain(name).short(),
            study.difference(name).short(),
            "–" if against is None else against.short(),
        ))
    head = (
        "approach",
        "steps",
        "accuracy",
        "area gain over classic",
        "accuracy over classic",
        "gain over a random prior",
    )
    title = f"{scenario} (means over seeds, 95 % intervals; steps include the classic run that a similarity needs)"
    return Grid(title, head, tuple(rows))


def main() -> None:
    options = given(__doc__, "similarity-helps")
    record, tables = {}, []
    for scenario in SCENARIOS:
        study = run_study(
            options.work / scenario, plan(options.data, scenario, options.seeds, options.rows), note=options.note
        )
        record[scenario] = recorded(study, options.data)
        tables.append(table(scenario, study))
        keep_figures(study, options.work / scenario, RESULTS / NAME / scenario, FIGURES)
    leave(NAME, record, tables)


if __name__ == "__main__":
    main()
