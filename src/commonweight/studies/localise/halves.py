"""The rows of a data set in two halves: one chooses the weights, the other measures what they hold."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.base.seeds import keyed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.data.table import Table

HALVES = ("choosing", "measuring")
SIDE = 1
"""Keys the half of a row apart from its fold."""


def units(table: Table) -> list[int]:
    """Number every row by what it was made from: rows of one source row stay together, and so do copies."""
    if table.is_numbered:
        return list(table.source_rows)
    return [_content(row, place) for row, place in zip(table.rows, table.source_rows, strict=True)]


def units_in_order(table: Table, source_rows: Sequence[int]) -> tuple[int, ...]:
    """Give the units of rows that are named by their source rows."""
    of_row = dict(zip(table.source_rows, units(table), strict=True))
    return tuple(of_row[row] for row in source_rows)


def halves(table: Table) -> tuple[Table, Table]:
    """Split a data set into the choosing and the measuring half."""
    places: tuple[list[int], list[int]] = ([], [])
    for place, unit in enumerate(units(table)):
        places[keyed(unit, SIDE) % 2].append(place)
    for name, found in zip(HALVES, places, strict=True):
        if not found:
            raise UsageError(
                f"the {name} half of {table.name} is empty: it has {len(table)} rows of too few source rows; give more"
            )
    return table.taken(places[0]), table.taken(places[1])


def _content(row: object, place: int) -> int:
    try:
        text = json.dumps(row, sort_keys=True)
    except TypeError:  # an image, say
        return place
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
