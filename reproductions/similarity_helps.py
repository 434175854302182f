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

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study
from commonweight.text import Grid, to_markdown
from commonweight.view.continual_files import write_figures
from commonweight.view.estimates import estimate

RESULTS = Path(__file__).parent / "results"
NAME = "similarity_helps"
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
            rows.append((name, str(study.budget(name)), estimate(study.average_accuracy(name)), "–", "–", "–"))
            continue
        kind = name.split("-")[0]
        random = f"{kind}-random"
        against = study.gain(name) - study.gain(random) if random in study.runs and name != random else None
        rows.append((
            name,
            str(study.budget(name)),
            estimate(study.average_accuracy(name)),
            estimate(study.gain(name)),
            estimate(study.difference(name)),
            "–" if against is None else estimate(against),
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


def keep_figures(study, work: Path, place: Path, names=("curves", "gains", "similarity-classic")) -> None:
    """Write all figures into the run folder, and take some of them to the results."""
    place.mkdir(parents=True, exist_ok=True)
    for file in write_figures(study, work / "figures"):
        if file.suffix == ".png" and file.stem in names:
            shutil.copyfile(file, place / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/similarity-helps"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    record, tables = {}, []
    for scenario in SCENARIOS:
        study = run_study(
            options.work / scenario, plan(str(options.data), scenario, options.seeds, options.rows), note=note
        )
        record[scenario] = json.loads(study.to_json().replace(str(options.data), "mnist"))
        tables.append(table(scenario, study))
        keep_figures(study, options.work / scenario, RESULTS / NAME / scenario)
    (RESULTS / f"{NAME}.json").write_text(
        json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (RESULTS / f"{NAME}.md").write_text(to_markdown(tables), encoding="utf-8")
    print(to_markdown(tables))


if __name__ == "__main__":
    main()
