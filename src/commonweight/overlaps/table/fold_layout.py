"""What folds add to a table of Fishers: corrected overlaps, noise ceilings, nulls, intervals."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.text import Block, Grid, number
from commonweight.overlaps.resampling.ratios import NO_NULL
from commonweight.overlaps.table.cells import WHOLE, Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.resampling.ratios import Quantity
    from commonweight.overlaps.table.cells import Value
    from commonweight.overlaps.table.table import OverlapTable

RAW = (
    "These are raw overlaps: they mix what is shared with sampling noise. A noise ceiling and an interval need "
    "folds in "
    "every footprint, such as fisher(..., folds=8) gives, and intervals that are not left out."
)
CORRECTED = (
    "Raw overlaps mix what is shared with sampling noise. The noise ceiling is the overlap of two halves of the "
    "examples of "
    "one and the same Fisher; corrected is the overlap of different halves over the root of both noise ceilings, and "
    "extrapolated goes on from quarters and halves to more examples. Both may exceed 1 by noise."
)
INTERVALS = (
    "Brackets: 95 % intervals over the examples, by leaving out each of {folds} folds of source rows "
    "(jackknife, t with {degrees} degrees of freedom). They do not include what another training would change."
)
NO_INTERVALS = "There are {folds} folds, and intervals need at least 3."
NULL = (
    "The null is what the corrected overlap would be if entries, rows or columns of one Fisher were permuted within "
    "each parameter: the largest of the three, which is named. It is of different halves of the examples too: compare "
    "it with corrected, not with raw."
)
PER_LAYER = "This table was read from JSON, which keeps the folds per layer: there are no such numbers per parameter."
COLUMNS: dict[Quantity, str] = {
    "raw": "raw",
    "corrected": "corrected",
    "extrapolated": "extrapolated",
    "above_null": "corrected - null",
}


def interval(estimate: Estimate, decimals: int) -> str:
    """Write an estimate as a cell."""
    if estimate.missing:
        return _shown(estimate.value, decimals)
    low, high = (_shown(end, decimals) for end in (estimate.low, estimate.high))
    return f"{_shown(estimate.value, decimals)} [{low}, {high}]"


def columns(table: OverlapTable, by: str) -> list[Column]:
    """Give the columns that stand beside the overlap of two Fishers."""
    if table.resampled is None:
        return []
    a, b = table.names
    rows = tuple(table.members if by == "layer" else table.terms)

    def corrected(name: str) -> Value:
        return partial(interval, _estimate(table, "corrected", a, b, by, name))

    def null(name: str) -> Value:
        which = table.null.which(name) if by == "layer" else table.null.which(parameter=name)
        return partial(_named, table.null.strictest.by(by)[name][0, 1], which[0, 1])

    return [
        Column(
            "corrected [95 %]",
            {name: corrected(name) for name in rows},
            partial(interval, table.estimate("corrected", a, b)),
            partial(interval, table.estimate("corrected", a, b, total="layer_mean")),
        ),
        *(
            Column(
                f"noise ceiling, {footprint}",
                {name: values[index] for name, values in table.noise_ceiling.by(by).items()},
                table.noise_ceiling.pooled[index],
                table.noise_ceiling.layer_mean[index],
            )
            for index, footprint in enumerate(table.names)
        ),
        Column(
            "null",
            {name: null(name) for name in rows},
            partial(_named, table.null.strictest.pooled[0, 1], table.null.which()[0, 1]),
            table.null.strictest.layer_mean[0, 1],
        ),
    ]


def pooled(table: OverlapTable, decimals: int) -> list[Block]:
    """Give all that is known of every pair, of all weights together."""
    if table.resampled is None:
        return []

    def row(i: int, j: int) -> tuple[str, ...]:
        a, b = table.names[i], table.names[j]
        cells = [interval(table.estimate(of, a, b), decimals) for of in COLUMNS]
        null = _named(table.null.strictest.pooled[i, j], table.null.which()[i, j], decimals)
        noise_ceilings = (number(table.noise_ceiling.pooled[index], decimals) for index in (i, j))
        return (f"{a} and {b}", *cells[:3], " and ".join(noise_ceilings), null, cells[3])

    *three, above = COLUMNS.values()
    header = ("pair", *(f"{words} [95 %]" for words in three), "noise ceilings", "null", f"{above} [95 %]")
    pairs = combinations(range(len(table.names)), 2)
    return [Grid("All weights together", header, tuple(row(i, j) for i, j in pairs))]


def grids(table: OverlapTable, by: str, decimals: int) -> list[Block]:
    """Give the grids that stand beside the overlaps of several Fishers layer by layer."""
    if table.resampled is None:
        return []
    rows = tuple(table.members if by == "layer" else table.terms)
    pairs = list(combinations(range(len(table.names)), 2))
    heads = (by, *(f"{table.names[i]} and {table.names[j]}" for i, j in pairs))
    null = table.null.strictest

    def corrected(name: str | None) -> tuple[str, ...]:
        found = (_estimate(table, "corrected", table.names[i], table.names[j], by, name) for i, j in pairs)
        return tuple(interval(each, decimals) for each in found)

    return [
        Grid(
            f"Corrected [95 %], by {by}",
            heads,
            tuple((name or WHOLE, *corrected(name)) for name in rows),
            (("pooled", *corrected(None)),),
        ),
        Grid(
            f"Null, by {by}",
            heads,
            tuple((name or WHOLE, *(number(null.by(by)[name][pair], decimals) for pair in pairs)) for name in rows),
            (("pooled", *(number(null.pooled[pair], decimals) for pair in pairs)),),
        ),
        Grid(
            f"Noise ceiling by {by}",
            (by, *table.names),
            tuple(
                (name or WHOLE, *(number(value, decimals) for value in values))
                for name, values in table.noise_ceiling.by(by).items()
            ),
            (("pooled", *(number(value, decimals) for value in table.noise_ceiling.pooled)),),
        ),
    ]


def sentences(table: OverlapTable, by: str) -> list[Block]:
    """Say what the numbers are."""
    if table.resampled is None:
        return [RAW]
    folds = table.resampled.folds
    intervals = (INTERVALS if folds > 2 else NO_INTERVALS).format(folds=folds, degrees=folds - 1)
    lost = by == "parameter" and table.resampled.per == "layer"
    return [
        CORRECTED,
        intervals,
        NULL if table.over_folds.has_null else f"{NO_NULL.capitalize()}.",
        *([PER_LAYER] if lost else []),
    ]


def frame_columns(table: OverlapTable, by: str) -> Mapping[str, list[float | str]]:
    """Give the columns of a data frame with one row per layer (or parameter) and pair."""
    if table.resampled is None:
        return {}
    found: dict[str, list[float | str]] = {}

    def add(name: str, value: float | str) -> None:
        found.setdefault(name, []).append(value)

    for name in table.members if by == "layer" else table.terms:
        which = table.null.which(name) if by == "layer" else table.null.which(parameter=name)
        for i, j in combinations(range(len(table.names)), 2):
            estimates = {of: _estimate(table, of, table.names[i], table.names[j], by, name) for of in COLUMNS}
            add("overlap_low", estimates["raw"].low)
            add("overlap_high", estimates["raw"].high)
            add("noise_ceiling_a", float(table.noise_ceiling.by(by)[name][i]))
            add("noise_ceiling_b", float(table.noise_ceiling.by(by)[name][j]))
            for of in ("corrected", "extrapolated"):
                add(of, estimates[of].value)
                add(f"{of}_low", estimates[of].low)
                add(f"{of}_high", estimates[of].high)
            add("null", float(table.null.strictest.by(by)[name][i, j]))
            add("null_permutes", str(which[i, j]))
            add("above_null_low", estimates["above_null"].low)
            add("above_null_high", estimates["above_null"].high)
    return found


def _estimate(table: OverlapTable, of: Quantity, a: str, b: str, by: str, name: str | None) -> Estimate:
    if by == "parameter":
        return table.estimate(of, a, b, parameter=name)
    return table.estimate(of, a, b, name)


def _named(value: float, which: str, decimals: int) -> str:
    return number(value, decimals) + (f" ({which})" if which else "")


def _shown(value: float, decimals: int) -> str:
    """As :func:`number`, for what may lie beyond 1: just above 1 is not 1."""
    text = number(value, decimals)
    beyond = value > 1 + 1e-12 and float(text) == 1
    return f">{text}" if beyond and np.isfinite(value) else text
