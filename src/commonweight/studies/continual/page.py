"""The page and the figures of a study of continual learning, from its folder alone."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.html import Overlaps
from commonweight.studies.continual.figures import figures_of
from commonweight.studies.continual.mask_figure import mask_figures
from commonweight.studies.continual.plan import Plan, seed_folders
from commonweight.studies.continual.results import gather, load_masks, same_tasks
from commonweight.studies.continual.run import CONTINUAL
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.page import pictures_of, write_run_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from commonweight.report.html import Picture

CAPTIONS = {
    "accuracy": "Accuracy on every task after learning every task, mean over seeds",
    "curves": "Learning curves: the error on a task while it is learned, mean over all tasks but the first, and seeds",
    "gains": "How much of the missing area above the learning curve each approach wins over classic; 95 % over seeds",
    "depth": "Overlaps of masks and similarities of tasks against depth, means over pairs of tasks",
    "masks": "Masks of one layer: one of them, the density of all their units, and what they share; seed 0",
    "similarity": "How alike tasks are; seed 0",
    "alphas": "How much each prior task influences the mask of a task; seed 0",
}
"""Of figures, by what their names begin with."""


def overlaps(run: Path) -> list[Overlaps]:
    """Read the overlaps of the masks of every approach: of all seeds together where they have the same tasks."""
    seeds = sorted(run.glob("seed-*"), key=lambda seed: int(seed.name.partition("-")[2]))
    kept = seeds if same_tasks([read_json(seed / "tasks.json") for seed in seeds]) else seeds[:1]
    of = f"mean of {len(kept)} seeds" if len(kept) > 1 else "seed 0"
    approaches = sorted(place.parent.name for place in seeds[0].glob(f"*/{OVERLAP}"))
    return [
        Overlaps(f"masks of {name}, {of}", [OverlapTable.load(seed / name) for seed in kept]) for name in approaches
    ]


def pictures(run: Path) -> list[Picture]:
    """Find the figures that the page shows."""
    return pictures_of(run, CAPTIONS)


def write_page(run: Path) -> Path:
    """Write the page of a finished study."""
    return write_run_page(run, overlaps(run), pictures(run))


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a finished study again."""
    plan = Plan.of_run(run, CONTINUAL)
    study = gather(plan, seed_folders(run, plan))
    return chain(figures_of(study), mask_figures(load_masks(run, study, next(iter(study.runs)))))


def items(run: Path) -> dict[str, Path]:
    """Name what is to be learned, and the file that is there when it is."""
    plan = Plan.of_run(run, CONTINUAL)
    return {
        f"seed {seed.seed}, {approach.name}, task {index}": seed.approach(approach).task(index)
        for seed in seed_folders(run, plan)
        for approach in plan.runs()
        for index in range(plan.tasks)
    }
