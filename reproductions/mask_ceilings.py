"""How far does noise of training keep two masks of one task apart? Noise ceilings of masks and activities, on MNIST.

Five tasks in one frozen network, learned again and again with other score initialisations and another order of the
images (``vary="training"``): the overlap of two trainings of one task is the noise ceiling of what two tasks can share.

    python reproductions/mask_ceilings.py --data ../shared/data/mnist --work runs/mask-ceilings

The same command goes on where it stopped. Writes ``reproductions/results/mask_ceilings.json`` and ``.md``; the verdicts
on pairs of tasks are in the report of each run.
"""

from __future__ import annotations

from itertools import chain

from on_mnist import estimate, given, recorded
from records import read_record, write_record, write_tables

from commonweight.base.text import Grid
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study

NAME = "mask_ceilings"
SETTINGS = {
    "rotated, 1 epoch": {"scenario": "rotated", "epochs": 1},
    "rotated, 5 epochs": {"scenario": "rotated", "epochs": 5},
    "permuted, 1 epoch": {"scenario": "permuted", "epochs": 1},
}


def summary(setting: str, over_seeds: dict) -> list[tuple[str, ...]]:
    """A row per kind and layer: smallest and largest noise ceiling, within and corrected over pairs of tasks."""
    rows = []
    for kind, layers in over_seeds.items():
        for layer, found in layers.items():
            values = [[estimate(each).value for each in found["noise_ceiling"].values()]]
            values += [[estimate(pair[of]).value for pair in found["pairs"]] for of in ("within", "corrected")]
            ranges = (
                f"{min(defined):.4f} to {max(defined):.4f}" if (defined := [v for v in some if v == v]) else "–"
                for some in values
            )
            undefined = sum(value != value for value in values[-1])
            rows.append((f"{setting}: {kind}, {layer}", *ranges, f"{undefined} of {len(found['pairs'])}"))
    return rows


def main() -> None:
    options = given(__doc__, "mask-ceilings")
    if not options.tables:
        record = {}
        for setting, asked in SETTINGS.items():
            plan = Plan(
                data=options.data,
                tasks=5,
                approaches=("classic",),
                seeds=options.seeds,
                vary="training",
                rows=options.rows,
                inference=(),
                **asked,
            )
            study = run_study(options.work / setting.replace(", ", "-").replace(" ", "-"), plan, note=options.note)
            found = recorded(study, options.data)
            kept = ("average_accuracy", "over_seeds")
            record[setting] = {"plan": found["plan"], **{key: found["approaches"]["classic"][key] for key in kept}}
        write_record(NAME, record, indent=None)
    rows = chain.from_iterable(summary(setting, each["over_seeds"]) for setting, each in read_record(NAME).items())
    head = ("setting: footprint, layer", "noise ceilings", "within", "corrected", "undefined")
    write_tables(NAME, [Grid("Smallest to largest, over tasks and pairs of tasks", head, tuple(rows))])


if __name__ == "__main__":
    main()
