"""The page of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.html import Overlaps
from commonweight.studies.run.page import write_run_page

if TYPE_CHECKING:
    from pathlib import Path


def overlaps(run: Path) -> list[Overlaps]:
    """Read what the page compares."""
    return [Overlaps("all footprints", [OverlapTable.load(run)])]


def write_page(run: Path) -> Path:
    """Write the page of a finished comparison."""
    return write_run_page(run, overlaps(run))
