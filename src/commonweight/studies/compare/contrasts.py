"""Which overlaps of a grid of models and data sets are compared with each other, and whether on the same rows."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from commonweight.report.verdicts import Contrast
from commonweight.studies.compare.rows import rows_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from commonweight.data.table import Table
    from commonweight.verdicts.evidence import Pair


class Cell(NamedTuple):
    """What one footprint of a grid is of."""

    model: str
    data: str
    rows: str
    """Names the source rows: equal for data sets made from the same ones."""


def grid_cells(models: Iterable[str], tables: Mapping[str, Table]) -> dict[str, Cell]:
    """Say what every footprint of a grid is of."""
    rows = {name: rows_key(table) for name, table in tables.items()}
    return {f"{model}/{data}": Cell(model, data, rows[data]) for model in models for data in tables}


def contrasts_of(cells: Mapping[str, Cell]) -> tuple[Contrast, ...]:
    """List the contrasts that differ in one thing; those of the same source rows first, since others decide nothing."""
    # Two models on one data set against the same two on another; against one of them and a third on the same; one model
    # on two data sets against another model on the same two; against one of them and a third in the same model.
    pairs = [pair for pair in combinations(cells, 2) if _kind(cells, pair)]
    found = [
        Contrast(first, second, _rows(cells, first) == _rows(cells, second))
        for first, second in combinations(pairs, 2)
        if _belong(cells, first, second)
    ]
    return tuple(sorted(found, key=lambda contrast: not contrast.same_rows))


def _rows(cells: Mapping[str, Cell], pair: Pair) -> set[str]:
    return {cells[name].rows for name in pair}


def _kind(cells: Mapping[str, Cell], pair: Pair) -> str:
    """What the two of a pair differ in, if that is one thing."""
    a, b = (cells[name] for name in pair)
    if (a.model == b.model) == (a.data == b.data):
        return ""
    return "models" if a.data == b.data else "data"


def _belong(cells: Mapping[str, Cell], first: Pair, second: Pair) -> bool:
    kind = _kind(cells, first)
    if kind != _kind(cells, second):
        return False
    models = [{cells[name].model for name in pair} for pair in (first, second)]
    data = [{cells[name].data for name in pair} for pair in (first, second)]
    differ, stay = (models, data) if kind == "models" else (data, models)
    return differ[0] == differ[1] or (stay[0] == stay[1] and len(differ[0] & differ[1]) == 1)
