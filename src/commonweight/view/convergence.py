"""The curve of a measurement that went on until its split-half ceiling was high enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.footprint.copies import beware_of_copies
from commonweight.overlaps.layout import FEW_EXAMPLES
from commonweight.text import DASH, Block, Grid, number

if TYPE_CHECKING:
    from commonweight.studies.ceiling_curve import Convergence

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
    head = ("examples", "effective examples", "ceiling", "95 % over folds")
    return [Grid("Split-half ceiling of all weights, as examples are added", head, rows), *_said(found), READING]


def _said(found: Convergence) -> list[Block]:
    last = found.points[-1]
    if found.undefined:
        return [
            f"The ceiling is undefined, and whether {found.target:g} can be reached cannot be said: {found.undefined}. "
            "Look at the labels, at what --include and --exclude leave, and whether the model is certain of every "
            "label it is given."
        ]
    if found.is_reached:
        said = f"The ceiling of {found.target:g} is reached with {last.examples} of {found.available} examples."
    elif last.ceiling.value >= found.target and last.rows is not None and not last.rows.are_disjoint:
        said = (
            f"The data ended before it could be said that the ceiling is reached: with all {found.available} examples "
            f"it is {number(last.ceiling.value)}, but {beware_of_copies(last.rows)}."
        )
    elif last.ceiling.value >= found.target:
        said = (
            f"The data ended before it could be said that the ceiling is reached: with all {found.available} examples "
            f"it is {number(last.ceiling.value)}, but they count as {last.effective:.1f} effective examples, and below "
            f"{FEW_EXAMPLES} these decide nothing. Measure on more rows."
        )
    else:
        said = (
            f"The data ended before the ceiling was reached: with all {found.available} examples it is "
            f"{number(last.ceiling.value)}, below {found.target:g}. Measure on more rows, or quote corrected overlaps "
            "with their intervals."
        )
    return [said, *([found.caution] if found.caution else [])]
