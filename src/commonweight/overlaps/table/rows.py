"""An overlap table as rows: one per layer or parameter and pair."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.overlaps.table import fold_layout

if TYPE_CHECKING:
    from typing import Literal

    import pandas as pd

    from commonweight.overlaps.table.table import OverlapTable


def to_frame(table: OverlapTable, by: Literal["layer", "parameter"]) -> pd.DataFrame:
    """Give one row per layer (or parameter) and pair."""
    import pandas as pd

    overlaps, shares = (
        (table.by_layer, table.trace_share) if by == "layer" else (table.by_parameter, table.parameter_share)
    )
    pairs = list(combinations(range(len(table.names)), 2))
    columns: dict[str, list[object]] = {
        by: [name for name in overlaps for _ in pairs],
        "a": [table.names[i] for _ in overlaps for i, _ in pairs],
        "b": [table.names[j] for _ in overlaps for _, j in pairs],
        "overlap": [values[i, j] for values in overlaps.values() for i, j in pairs],
        "trace_share_a": [values[i] for values in shares.values() for i, _ in pairs],
        "trace_share_b": [values[j] for values in shares.values() for _, j in pairs],
    }
    if table.masks is not None:
        density, chance, corrected = (
            level.by_layer if by == "layer" else level.by_parameter
            for level in (table.density, table.chance, table.corrected)
        )
        columns["density_a"] = [values[i] for values in density.values() for i, _ in pairs]
        columns["density_b"] = [values[j] for values in density.values() for _, j in pairs]
        columns["chance"] = [values[i, j] for values in chance.values() for i, j in pairs]
        columns["corrected"] = [values[i, j] for values in corrected.values() for i, j in pairs]
    return pd.DataFrame({**columns, **fold_layout.frame_columns(table, by)})
