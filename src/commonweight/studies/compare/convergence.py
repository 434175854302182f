"""The curve of a measurement that went on until its split-half noise ceiling was high enough, in words."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Block, Grid, number
from commonweight.footprints.copies import beware_of_copies
from commonweight.overlaps.table.layout import FEW_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.studies.compare.until_noise_ceiling import Convergence

READING = (
    "The noise ceiling is the overlap of two halves of the examples, so it is that of half as many; an overlap "
    "corrected by it is the estimate to quote. It says how much noise of the examples is left, not how well other "
    "trainings agree."
)

PASSED = (
    "Rows were added until the noise ceiling was reached in two steps in a row, so the last value is one that passed: "
    "by this selection it is too high on average, and its interval holds only given that the measurement stopped "
    "there. It is far too high where a few loud examples carry much of the trace and these rows hold too few of them."
)

NEVER_PASSED = (
    "The measurement would have stopped earlier had the noise ceiling been reached in two steps in a row: by this "
    "selection the last value is, if anything, too low on average, and its interval holds only given that."
)


def planned(target: float, ends: Sequence[int]) -> Block:
    """Say what a measurement up to a noise ceiling will do."""
    *before, last = map(str, ends)
    steps = f"{', '.join(before)} and {last}" if before else last
    return (
        f"It stops where the noise ceiling is at least {target:g}, with an effective sample size of {FEW_EXAMPLES} or "
        f"more, in two steps in a row. Steps: {steps} rows; at most {last} are measured."
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
    head = ("examples", "effective sample size", "noise ceiling", "95 % over folds")
    grid = Grid("Split-half noise ceiling of all weights, as examples are added", head, rows)
    falls = [
        f"From {one.examples} to {two.examples} examples the effective sample size fell from {one.effective:.1f} to "
        f"{two.effective:.1f}: examples came in that carry more of the trace than those before, and noise ceilings of "
        'rows without such examples are too high (see "loud examples" in docs/evidence.md).'
        for one, two in pairwise(found.points)
        if two.effective < one.effective
    ]
    return [grid, *falls, *_end(found), READING]


def _end(found: Convergence) -> list[Block]:
    """What the last noise ceiling says, and what helps where the rows ended before it was reached."""
    last = found.points[-1]
    if math.isnan(last.noise_ceiling.value):
        zero = "is zero" if math.isnan(last.effective) else "is zero but for one fold, so no two halves can be compared"
        return [
            f"The noise ceiling is undefined, so whether {found.target:g} can be reached is unknown: the Fisher of all "
            f"{last.examples} examples {zero}. Look at the labels, at what --include and --exclude leave, and whether "
            "the model is certain of every label it is given."
        ]
    if found.is_reached:
        return [
            f"The noise ceiling of {found.target:g} is reached with {last.examples} of {found.available} examples, in "
            "two steps in a row.",
            PASSED,
        ]
    limited = found.available < found.in_all
    whose = "The rows that --examples allows" if limited else "The data"
    more = f"Allow more of the {found.in_all} rows with --examples" if limited else "Measure on more rows"
    value = f"with all {found.available} examples it is {number(last.noise_ceiling.value)}"
    if last.noise_ceiling.value < found.target:
        said = (
            f"was reached: {value}, below {found.target:g}. {more}, or quote corrected overlaps with their intervals."
        )
    elif last.rows is not None and not last.rows.are_disjoint:
        said = f"could count: {value}, but {beware_of_copies(last.rows)}."
    elif last.effective < FEW_EXAMPLES:
        said = f"could count: {value}, but the effective sample size of {last.effective:.1f} is below {FEW_EXAMPLES}."
        said += f" {more}."
    else:
        said = (
            f"was confirmed: {value}, at least {found.target:g}, but two steps in a row must be enough, the first with "
            f"at most two thirds of the rows. {more}."
        )
    return [f"{whose} ended before the noise ceiling {said}", NEVER_PASSED]
