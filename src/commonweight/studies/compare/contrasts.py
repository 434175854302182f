"""Which overlaps of a grid of models and data sets are compared with each other, and whether on the same rows."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.errors import UsageError
from commonweight.report.verdicts import Contrast
from commonweight.studies.compare.rows import rows_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


def contrasts_of(cells: Mapping[str, Cell], asked: Sequence[str] = ()) -> tuple[Contrast, ...]:
    """List the contrasts that are asked for, then those of own data, then all that differ in one thing."""
    # Two models on one data set against the same two on another; against one of them and a third on the same; one model
    # on two data sets against another model on the same two; against one of them and a third in the same model.
    pairs = [pair for pair in combinations(cells, 2) if _kind(cells, pair)]
    found = [
        Contrast(first, second, _rows(cells, first) == _rows(cells, second))
        for first, second in combinations(pairs, 2)
        if _belong(cells, first, second)
    ]
    # Those of the same source rows come first, since others decide nothing.
    found.sort(key=lambda contrast: not contrast.same_rows)
    return (*(_asked(cells, words) for words in asked), *_own_data(cells), *found)


def _asked(cells: Mapping[str, Cell], words: str) -> Contrast:
    """Read ``A,B:C,D``; a name is that of a footprint, or of its model or data set where that is enough."""
    pairs = [tuple(side.split(",")) for side in words.split(":")]
    if len(pairs) != 2 or {len(pair) for pair in pairs} != {2}:
        raise UsageError(f"{{argument}} is two pairs such as A,B:C,D, got {words!r}", argument="contrasts")
    (a, b), (c, d) = ([_named(cells, name) for name in pair] for pair in pairs)
    if len({frozenset((a, b)), frozenset((c, d))}) < 2 or a == b or c == d:
        raise UsageError(f"{{argument}} {words!r} compares a pair with itself; give two pairs", argument="contrasts")
    question = f"Do {a} and {b} share more than {c} and {d}?"
    return Contrast((a, b), (c, d), _rows(cells, (a, b)) == _rows(cells, (c, d)), question)


def _named(cells: Mapping[str, Cell], name: str) -> str:
    found = [each for each, cell in cells.items() if name in {each, cell.model, cell.data}]
    if len(found) != 1:
        there = ", ".join(cells)
        why = f"{len(found)} footprints" if found else "no footprint"
        raise UsageError(f"{{argument}}: {name!r} names {why}; there are {there}", argument="contrasts")
    return found[0]


def _own_data(cells: Mapping[str, Cell]) -> list[Contrast]:
    """Where every model has a data set of its name, ask whether they share more on other data than on their own."""
    models, data = ({getattr(cell, part): None for cell in cells.values()} for part in ("model", "data"))
    if len(models) < 2 or not set(models) <= set(data):
        return []
    return [
        Contrast(
            (f"{a}/{common}", f"{b}/{common}"),
            (f"{a}/{a}", f"{b}/{b}"),
            _rows(cells, (f"{a}/{common}", f"{b}/{common}")) == _rows(cells, (f"{a}/{a}", f"{b}/{b}")),
            f"Do {a} and {b} share more on {common} than each on its own data?",
        )
        for common in data
        if common not in models
        for a, b in combinations(models, 2)
    ]


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
