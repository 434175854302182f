"""How many folds a study takes where nobody says: eight, where every fold then holds a row of every data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.errors import UsageError
from commonweight.footprint.folds import fold_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commonweight.data.table import Table
    from commonweight.studies.measure import Note

FOLDS = 8
"""The usual number, and the one whose intervals were examined (docs/reading.md)."""


def fold_count(tables: Iterable[Table], asked: int | None, note: Note) -> int:
    """Decide the number of folds.

    Args:
        tables: All data sets that will be compared.
        asked: What was asked for; None for eight, or for one where eight are too many.
        note: Hears why there are no folds.

    Returns:
        The number, at least 1.

    Raises:
        UsageError: If a number was asked for, and a fold would hold no row of a data set.
    """
    for table in tables:
        fault = _fault(table, FOLDS if asked is None else asked)
        if fault and asked is not None:
            raise UsageError(f"{fault}; use fewer --folds or more examples")
        if fault:
            note(f"{fault}; so it is measured in one piece, and there will be no ceilings and no intervals")
            return 1
    return FOLDS if asked is None else asked


def _fault(table: Table, folds: int) -> str | None:
    empty = set(range(folds)) - {fold_of(row, folds) for row in table.source_rows}
    if not empty:
        return None
    return f"fold {min(empty)} of {folds} holds no example of {table.name}, which has {len(table)} rows"
