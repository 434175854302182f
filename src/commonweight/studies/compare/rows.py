"""The source rows of data sets: which were made from the same ones, and into how many folds they are put."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.data.table import SOURCE_ROW
from commonweight.footprints.folds import fold_of
from commonweight.studies.compare.options import FOLDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commonweight.base.text import Note
    from commonweight.data.table import Table


def rows_key(table: Table) -> str:
    """Name the source rows of a data set."""
    numbers = list(table.source_rows)
    if SOURCE_ROW in table.columns and table.column(SOURCE_ROW) == numbers:
        return f"source rows {_digest(sorted(numbers))}"
    identity = table.identity
    if identity.get("sha256"):  # of what is in the file: the path adds nothing
        identity = {name: value for name, value in identity.items() if name != "path"}
    return f"data {_digest(identity)}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fold_count(tables: Iterable[Table], asked: int | None, note: Note) -> int:
    """Decide the number of folds."""
    for table in tables:
        fault = _fault(table, FOLDS if asked is None else asked)
        if fault and asked is not None:
            raise UsageError(f"{fault}; use fewer {{argument}} or more examples", argument="folds")
        if fault:
            note(f"{fault}; so it is measured in one piece, and there will be no noise ceilings and no intervals")
            return 1
    return FOLDS if asked is None else asked


def _fault(table: Table, folds: int) -> str | None:
    empty = set(range(folds)) - {fold_of(row, folds) for row in table.source_rows}
    if not empty:
        return None
    return f"fold {min(empty)} of {folds} holds no example of {table.name}, which has {len(table)} rows"
