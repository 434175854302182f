"""The page and the figures of a comparison, from its folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.html import Overlaps
from commonweight.report.overlap_figures import figures_of
from commonweight.studies.compare.folder import FOOTPRINTS, read_comparison
from commonweight.studies.run.page import write_run_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure


def overlaps(run: Path) -> list[Overlaps]:
    """Read what the page compares."""
    return [Overlaps("all footprints", [OverlapTable.load(run)])]


def write_page(run: Path) -> Path:
    """Write the page of a finished comparison."""
    return write_run_page(run, overlaps(run))


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the overlaps of all pairs, and how they go layer by layer."""
    return figures_of(OverlapTable.load(run))


def items(run: Path) -> dict[str, Path]:
    """Name what is to be measured, and the file that is there when it is."""
    asked = read_comparison(run).get("asked", {})
    return {
        f"{model}/{data}": run / FOOTPRINTS / model / data / FOOTPRINT_RECORD
        for model in asked.get("models", {})
        for data in asked.get("data", {})
    }
