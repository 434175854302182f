"""The curve of a measurement that went on until its split-half ceiling was high enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.text import DASH, Block, Grid, number

if TYPE_CHECKING:
    from commonweight.studies.until_ceiling import Convergence

READING = (
    "The ceiling is the overlap of two halves of the examples, so it is that of half as many; an overlap corrected by "
    "it is the estimate to quote. It says how much noise of the examples is left, not how well other trainings agree."
)


def convergence(found: Convergence) -> list[Block]:
    """Lay out the curve.

    Args:
        found: What was measured.

    Returns:
        One row per step, what it came to, and how to read it.
    """
    rows = tuple(
        (
            str(point.examples),
            DASH if math.isnan(point.effective) else f"{point.effective:.1f}",
            number(point.ceiling.value),
            DASH if point.ceiling.missing else f"[{number(point.ceiling.low)}, {number(point.ceiling.high)}]",
        )
        for point in found.points
    )
    last = found.points[-1]
    if found.is_reached:
        said = f"The ceiling of {found.target:g} is reached with {last.examples} of {found.available} examples."
    else:
        said = (
            f"The data ended before the ceiling was reached: with all {found.available} examples it is "
            f"{number(last.ceiling.value)}, below {found.target:g}. Measure on more rows, or quote corrected overlaps "
            "with their intervals."
        )
    head = ("examples", "effective examples", "ceiling", "95 % over folds")
    return [Grid("Split-half ceiling of all weights, as examples are added", head, rows), said, READING]
