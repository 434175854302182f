"""Which data sets were made from the same source rows, so that overlaps on them may be set against each other."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from commonweight.data.table import SOURCE_ROW
from commonweight.decision.table_verdicts import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from commonweight.data.table import Table


def grid_cells(models: Iterable[str], tables: Mapping[str, Table]) -> dict[str, Cell]:
    """Say what every footprint of a grid is of.

    Args:
        models: Names of the models.
        tables: The data sets by name.

    Returns:
        ``model/data`` -> model, data and source rows.
    """
    rows = {name: rows_key(table) for name, table in tables.items()}
    return {f"{model}/{data}": Cell(model, data, rows[data]) for model in models for data in tables}


def rows_key(table: Table) -> str:
    """Name the source rows of a data set.

    Args:
        table: The data set.

    Returns:
        Equal for the same data, wherever the file lies, and for data sets whose columns ``source_row`` hold the same
        numbers equally often. Rows without such a column are known only by their file: whether two files were made from
        the same rows is then not known, and they count as different.
    """
    numbers = list(table.source_rows)
    if SOURCE_ROW in table.columns and table.column(SOURCE_ROW) == numbers:
        return f"source rows {_digest(sorted(numbers))}"
    identity = table.identity
    if identity.get("sha256"):  # of what is in the file: the path adds nothing
        identity = {name: value for name, value in identity.items() if name != "path"}
    return f"data {_digest(identity)}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
