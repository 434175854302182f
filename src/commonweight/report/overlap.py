"""An overlap table as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.overlaps.table.cells import WHOLE

if TYPE_CHECKING:
    from commonweight.overlaps.table.table import OverlapTable


def to_csv(table: OverlapTable, by: str | int = "layer") -> str:
    """Write one row per layer and pair, without totals, at full precision; undefined is an empty field."""
    if by == "parameter":
        frame = table.to_frame("parameter")
    else:
        frame = (table.roll_up(by) if isinstance(by, int) else table).to_frame()
        frame["layer"] = frame["layer"].replace("", WHOLE)
    return str(frame.to_csv(index=False, lineterminator="\n"))
