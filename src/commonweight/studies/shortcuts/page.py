"""The page and the figures of a study of shortcuts, from its folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.html import Overlaps
from commonweight.studies.compare.folder import FOOTPRINTS
from commonweight.studies.run.page import pictures_of, write_run_page
from commonweight.studies.shortcuts.figures import figures_of
from commonweight.studies.shortcuts.plan import Plan, seed_folders
from commonweight.studies.shortcuts.report import SHOWS
from commonweight.studies.shortcuts.results import gather
from commonweight.studies.shortcuts.run import SHORTCUTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from commonweight.report.html import Picture

GRID = "fisher-"
"""Beginning of the folders that hold a table."""


def overlaps(run: Path) -> list[Overlaps]:
    """Read the overlaps of all models on all sets, of all seeds together, for every Fisher type."""
    rules = sorted(place.parent.name.removeprefix(GRID) for place in run.glob(f"seed-0/{GRID}*/{OVERLAP}"))
    found = {
        rule: [OverlapTable.load(place.parent) for place in run.glob(f"seed-*/{GRID}{rule}/{OVERLAP}")]
        for rule in rules
    }
    return [Overlaps(f"all models on all sets, Fisher type {rule}", tables) for rule, tables in found.items()]


def pictures(run: Path) -> list[Picture]:
    """Find the figures that the page shows."""
    return pictures_of(run, SHOWS)


def write_page(run: Path) -> Path:
    """Write the page of a finished study."""
    return write_run_page(run, overlaps(run), pictures(run))


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a finished study again."""
    plan = Plan.of_run(run, SHORTCUTS)
    return figures_of(gather(plan, seed_folders(run, plan)))


def items(run: Path) -> dict[str, Path]:
    """Name what is to be trained, scored and measured, and the file that is there when it is."""
    plan = Plan.of_run(run, SHORTCUTS)
    found: dict[str, Path] = {}
    for seed in seed_folders(run, plan):
        of = f"seed {seed.seed}"
        found |= {f"{of}, training {name}": seed.model(name) / "config.json" for name in plan.trained}
        found[f"{of}, scores"] = seed.scores
        for rule in plan.fisher_types:
            grid = seed.grid(rule) / FOOTPRINTS
            found |= {f"{of}, {rule}: {name}": grid / name / FOOTPRINT_RECORD for name in plan.footprints}
    return found
