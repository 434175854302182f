"""An overlap table as CSV."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.overlaps.layout import WHOLE

if TYPE_CHECKING:
    from commonweight.overlaps.table import OverlapTable


def to_csv(table: OverlapTable, by: str | int = "layer") -> str:
    """Write one row per layer and pair, without totals, at full precision; undefined is an empty field.

    Args:
        table: The table.
        by: ``layer``, ``parameter``, or a depth of the module tree.

    Returns:
        CSV with the columns ``layer`` (or ``parameter``), ``a``, ``b``, ``overlap``, ``trace_share_a``,
        ``trace_share_b``.
    """
    if by != "parameter":
        frame = (table.roll_up(by) if isinstance(by, int) else table).to_frame()
        frame["layer"] = frame["layer"].replace("", WHOLE)
        return str(frame.to_csv(index=False, lineterminator="\n"))
    import pandas as pd

    rows = [
        (
            name,
            table.names[i],
            table.names[j],
            values[i, j],
            table.parameter_share[name][i],
            table.parameter_share[name][j],
        )
        for name, values in table.by_parameter.items()
        for i, j in combinations(range(len(table.names)), 2)
    ]
    columns = ["parameter", "a", "b", "overlap", "trace_share_a", "trace_share_b"]
    return str(pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))
