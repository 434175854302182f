"""What an overlap table shows, and in which order: finished text cells for :mod:`commonweight.base.text`."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.base.text import DASH, Block, Grid, number
from commonweight.footprints.copies import beware_of_copies
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.table import fold_layout, mask_layout
from commonweight.overlaps.table.cells import WHOLE, Column, Value, cell, matrix
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from commonweight.overlaps.table.table import OverlapTable

RAW = fold_layout.RAW
MOST_LEFT_OUT = 10
FEW_EXAMPLES = SMALLEST_EFFECTIVE
"""Below this effective sample size a Fisher decides nothing."""


def blocks(table: OverlapTable, by: str | int = "layer", decimals: int = 4) -> list[Block]:
    """Lay out a table: for two footprints one grid with shares and both totals; for more, matrices of both totals."""
    if isinstance(by, int) and not isinstance(by, bool):
        return blocks(table.roll_up(by), "layer", decimals)
    if by not in {"layer", "parameter"}:
        raise UsageError(f"by must be 'layer', 'parameter' or a depth such as 2, got {by!r}")
    overlaps = table.by_layer if by == "layer" else table.by_parameter
    shares = table.trace_share if by == "layer" else table.parameter_share
    grids: list[Block]
    if len(table.names) == 2:
        grids = [_two(table, by, overlaps, shares, decimals), *fold_layout.pooled(table, decimals)]
    else:
        grids = [
            _title(table),
            matrix(table.names, "Pooled", table.pooled, decimals),
            *mask_layout.matrices(table, decimals),
            *fold_layout.pooled(table, decimals),
            matrix(table.names, "Layer mean (number of layers)", table.layer_mean, decimals, table.layers_defined),
            _pairs(table, by, overlaps, decimals),
            *mask_layout.grids(table, by, decimals),
            *fold_layout.grids(table, by, decimals),
            _shares(table, by, shares, decimals),
        ]
    return [*grids, *_footprints(table), *_beware(table, by), table.alignment.sentence(), *_left_out(table)]


def beware_of_few(effective: Mapping[str, float]) -> list[str]:
    """Warn of Fishers in which a few examples carry the trace.

    Args:
        effective: Effective sample size by footprint; nan where they were not measured.

    Returns:
        One sentence, or none.

    Example:
        >>> beware_of_few({"a": 101.1, "b": 7.5})
        ['Below 20 effective sample size: b. Fishers of so few decide nothing.']
    """
    few = [name for name, found in effective.items() if found < FEW_EXAMPLES]
    return (
        [f"Below {FEW_EXAMPLES} effective sample size: {', '.join(few)}. Fishers of so few decide nothing."]
        if few
        else []
    )


def _title(table: OverlapTable) -> str:
    *most, last = table.names
    return f"{MEASURES[table.kind].words} of {', '.join(most)} and {last}"


def _two(
    table: OverlapTable,
    by: str,
    overlaps: Mapping[str, NDArray[np.float64]],
    shares: Mapping[str, NDArray[np.float64]],
    decimals: int,
) -> Grid:
    defined, layers = table.layers_defined[0, 1], len(table.layers)
    columns = [
        Column(
            "overlap",
            {name: values[0, 1] for name, values in overlaps.items()},
            table.pooled[0, 1],
            table.layer_mean[0, 1],
        ),
        *mask_layout.columns(table, by),
        *fold_layout.columns(table, by),
        *(
            Column(
                f"{MEASURES[table.kind].share}, {footprint}",
                {name: values[index] for name, values in shares.items()},
            )
            for index, footprint in enumerate(table.names)
        ),
    ]
    return Grid(
        _title(table),
        (by, *(column.head for column in columns)),
        tuple((name or WHOLE, *(cell(column.values[name], decimals) for column in columns)) for name in overlaps),
        (
            ("pooled", *(_total(column.pooled, decimals) for column in columns)),
            (
                f"layer mean ({defined} of {layers} layers)",
                *(_total(column.layer_mean, decimals) for column in columns),
            ),
        ),
    )


def _total(value: Value | None, decimals: int) -> str:
    return "" if value is None else cell(value, decimals)


def _pairs(table: OverlapTable, by: str, overlaps: Mapping[str, NDArray[np.float64]], decimals: int) -> Grid:
    pairs = list(combinations(range(len(table.names)), 2))
    return Grid(
        f"By {by}",
        (by, *(f"{table.names[i]} and {table.names[j]}" for i, j in pairs)),
        tuple(
            (name or WHOLE, *(number(values[i, j], decimals) for i, j in pairs)) for name, values in overlaps.items()
        ),
        (("pooled", *(number(table.pooled[i, j], decimals) for i, j in pairs)),),
    )


def _shares(table: OverlapTable, by: str, shares: Mapping[str, NDArray[np.float64]], decimals: int) -> Grid:
    words = MEASURES[table.kind].share
    return Grid(
        f"{words[0].upper()}{words[1:]} by {by}",
        (by, *table.names),
        tuple((name or WHOLE, *(number(share, decimals) for share in values)) for name, values in shares.items()),
    )


def _footprints(table: OverlapTable) -> list[Block]:
    if table.masks is not None:
        return [mask_layout.footprints(table)]
    if table.kind == "activity" and not any(table.counts.values()):
        return []  # nobody counted

    def row(name: str) -> tuple[str, ...]:
        effective = table.effective_sample_size[name]
        cells = (name, str(table.counts[name]), DASH if math.isnan(effective) else f"{effective:.1f}")
        return (*cells, table.fisher_types[name] or DASH) if table.kind == "fisher" else cells

    header = ("footprint", "examples", "effective sample size")
    return [
        Grid(
            "The footprints",
            (*header, "Fisher type") if table.kind == "fisher" else header,
            tuple(row(name) for name in table.names),
        )
    ]


def _beware(table: OverlapTable, by: str) -> list[Block]:
    found: list[Block] = [*beware_of_few(table.effective_sample_size)]
    found += [f"{name}: {beware}." for name, rows in table.rows.items() if (beware := beware_of_copies(rows))]
    if table.kind == "fisher":
        found += fold_layout.sentences(table, by)
    return [*found, *mask_layout.sentences(table)]


def _left_out(table: OverlapTable) -> list[Block]:
    if not table.left_out:
        return []
    shown = "; ".join(str(item) for item in table.left_out[:MOST_LEFT_OUT])
    more = len(table.left_out) - MOST_LEFT_OUT
    every = len(table.left_out)
    words = f"{every} parameter{'s were' if every > 1 else ' was'} not compared"
    return [f"{words}: {shown}" + (f"; and {more} more." if more > 0 else ".")]
