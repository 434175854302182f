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

from on_mnist import Given, estimate, given, keep_figures, recorded
from records import RESULTS, read_record, write_record, write_tables

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


def table(scenario: str, record: dict) -> Grid:
    rows = []
    for name, found in record["approaches"].items():
        accuracy = estimate(found["average_accuracy"]).short()
        if name == "classic":
            rows.append((name, str(found["steps"]), accuracy, "–", "–", "–"))
            continue
        gain, random = estimate(found["area_gain_on_classic"]), f"{name.split('-')[0]}-random"
        against = "–"
        if random in record["approaches"] and name != random:
            against = (gain - estimate(record["approaches"][random]["area_gain_on_classic"])).short()
        over_classic = estimate(found["accuracy_over_classic"]).short()
        rows.append((name, str(found["steps"]), accuracy, gain.short(), over_classic, against))
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


def measure(options: Given) -> dict:
    record = {}
    for scenario in SCENARIOS:
        study = run_study(
            options.work / scenario, plan(options.data, scenario, options.seeds, options.rows), note=options.note
        )
        record[scenario] = recorded(study, options.data)
        keep_figures(study, options.work / scenario, RESULTS / NAME / scenario, FIGURES)
    return record


def main() -> None:
    options = given(__doc__, "similarity-helps")
    if not options.tables:
        write_record(NAME, measure(options))
    write_tables(NAME, [table(scenario, found) for scenario, found in read_record(NAME).items()])


if __name__ == "__main__":
    main()
