r"""The cells of the grid that answer the question, and their contrasts over training seeds.

For two models a and b, each with its own shortcut, with ``O(x, y)`` the overlap of two footprints:

=============  ============================================================================
shared         ``O(a on originals, b on originals)``
unshared       ``O(a on its own contradicted rows, b on its own)``: different inputs
same input, a  ``O(a, b)``, both on the rows contradicted by a's shortcut
same input, b  ``O(a, b)``, both on the rows contradicted by b's shortcut
=============  ============================================================================

``shared − unshared`` is the published contrast. Part of it is an effect of the input, since *unshared* compares models
on different inputs; what remains of it when the input is the same is ``shared − same input``.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table import OverlapTable

CELLS = ("shared", "unshared", "same input, first", "same input, second")


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds, with its interval."""

    values: tuple[float, ...]
    """One per seed; nan where it is undefined."""

    @property
    def mean(self) -> float:
        """Mean over the seeds; nan if one is undefined."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval over seeds, Student's t; nan with fewer than two seeds."""
        count = len(self.values)
        if count < 2 or not all(map(math.isfinite, self.values)):
            return math.nan
        from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

        return float(stdtrit(count - 1, 0.975)) * statistics.stdev(self.values) / math.sqrt(count)

    def minus(self, other: Estimate) -> Estimate:
        """Subtract seed by seed.

        Args:
            other: An estimate over the same seeds.

        Returns:
            The difference, whose interval is that of paired values.
        """
        return Estimate(tuple(a - b for a, b in zip(self.values, other.values, strict=True)))


def cell_names(first: str, second: str) -> dict[str, tuple[str, str]]:
    """Name the two footprints of every cell of a pair of models.

    Args:
        first: Code of the first model's shortcut.
        second: That of the second.

    Returns:
        Cell -> two names ``model/data``.

    Example:
        >>> cell_names("st", "op")["unshared"]
        ('st/st', 'op/op')
    """
    return {
        "shared": (f"{first}/{ORIGINAL}", f"{second}/{ORIGINAL}"),
        "unshared": (f"{first}/{first}", f"{second}/{second}"),
        "same input, first": (f"{first}/{first}", f"{second}/{first}"),
        "same input, second": (f"{first}/{second}", f"{second}/{second}"),
    }


def pair_estimates(
    tables: Sequence[OverlapTable], shortcuts: Sequence[str], layer: str | None = None
) -> Mapping[tuple[str, str], dict[str, Estimate]]:
    """Collect the cells of every pair of models.

    Args:
        tables: One per seed, of one label rule.
        shortcuts: The codes.
        layer: A layer of the tables; None for all weights pooled.

    Returns:
        Pair -> cell -> estimate over the seeds.
    """
    return {
        (first, second): {
            cell: Estimate(tuple(_value(table, names, layer) for table in tables))
            for cell, names in cell_names(first, second).items()
        }
        for first, second in combinations(shortcuts, 2)
    }


def _value(table: OverlapTable, names: tuple[str, str], layer: str | None) -> float:
    i, j = (table.names.index(name) for name in names)
    return float((table.pooled if layer is None else table.by_layer[layer])[i, j])
