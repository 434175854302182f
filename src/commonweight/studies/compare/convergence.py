"""The curve of a measurement that went on until its split-half noise ceiling was high enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Block, Grid, number
from commonweight.footprints.copies import beware_of_copies
from commonweight.overlaps.table.layout import FEW_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.studies.compare.until_noise_ceiling import Convergence

READING = (
    "The noise ceiling is the overlap of two halves of the examples, so it is that of half as many; an overlap "
    "corrected by "
    "it is the estimate to quote. It says how much noise of the examples is left, not how well other trainings agree."
)


LOUD = 'see "loud examples" in docs/reading.md'


def planned(target: float, ends: Sequence[int]) -> Block:
    """Say what a measurement up to a noise ceiling will do."""
    *before, last = map(str, ends)
    steps = f"{', '.join(before)} and {last}" if before else last
    return (
        f"It stops where the noise ceiling is at least {target:g}, with {FEW_EXAMPLES} effective sample size, in two "
        "steps in a "
        f"row. Steps: {steps} rows; at most {last} are measured."
    )


def convergence(found: Convergence) -> list[Block]:
    """Lay out the curve."""
    rows = tuple(
        (
            str(point.examples),
            DASH if math.isnan(point.effective) else f"{point.effective:.1f}",
            number(point.noise_ceiling.value),
            DASH
            if point.noise_ceiling.missing
            else f"[{number(point.noise_ceiling.low)}, {number(point.noise_ceiling.high)}]",
        )
        for point in found.points
    )
    head = ("examples", "effective sample size", "noise_ceiling", "95 % over folds")
    return [Grid("Split-half noise ceiling of all weights, as examples are added", head, rows), *_said(found), READING]


def _said(found: Convergence) -> list[Block]:
    falls = [
        f"From {one.examples} to {two.examples} examples the effective ones fell from {one.effective:.1f} to "
        f"{two.effective:.1f}: examples came in that carry more of the trace than those before, and noise ceilings "
        "of rows "
        f"without such examples are too high ({LOUD})."
        for one, two in found.falls
    ]
    if found.undefined:
        return [
            *falls,
            f"The noise ceiling is undefined, and whether {found.target:g} can be reached cannot be said: "
            f"{found.undefined}. "
            "Look at the labels, at what --include and --exclude leave, and whether the model is certain of every "
            "label it is given.",
        ]
    said = (
        f"The noise ceiling of {found.target:g} is reached with {found.points[-1].examples} of {found.available} "
        "examples, "
        "in two steps in a row."
        if found.is_reached
        else _ended(found)
    )
    return [*falls, said, *([found.caution] if found.caution else [])]


def _ended(found: Convergence) -> str:
    """What the last noise ceiling says where rows ended before the target was reached, and what helps."""
    last = found.points[-1]
    limited = found.available < found.in_all
    whose = "The rows that --examples allows" if limited else "The data"
    more = f"Allow more of the {found.in_all} rows with --examples" if limited else "Measure on more rows"
    value = f"with all {found.available} examples it is {number(last.noise_ceiling.value)}"
    unsaid = f"{whose} ended before it could be said that the noise ceiling is reached: {value}, "
    if last.noise_ceiling.value < found.target:
        return (
            f"{whose} ended before the noise ceiling was reached: {value}, below {found.target:g}. {more}, or quote "
            "corrected overlaps with their intervals."
        )
    if last.rows is not None and not last.rows.are_disjoint:
        return f"{unsaid}but {beware_of_copies(last.rows)}."
    if last.effective < FEW_EXAMPLES:
        return (
            f"{unsaid}but they count as {last.effective:.1f} effective sample size, and below {FEW_EXAMPLES} these "
            "decide "
            f"nothing. {more}."
        )
    return (
        f"{unsaid}at least {found.target:g}, but two steps in a row must be enough, the first with at most two thirds "
        f"of the rows. {more}."
    )
