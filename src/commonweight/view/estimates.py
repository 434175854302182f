"""Differences as cells of a table: sign, value and half width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.text import DASH

if TYPE_CHECKING:
    from commonweight.overlaps.estimate import Estimate


def signed(value: Estimate) -> str:
    """Write a difference with its interval.

    Args:
        value: The estimate.

    Returns:
        ``+0.0100 ± 0.0020``; without an interval the mean alone, undefined a dash.
    """
    if math.isnan(value.value):
        return DASH
    half = "" if math.isnan(value.half_width()) else f" ± {value.half_width():.4f}"
    return f"{value.value:+.4f}{half}"
