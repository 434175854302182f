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

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.overlaps.estimate import Estimate
from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table import OverlapTable

CELLS = ("shared", "unshared", "same input, first", "same input, second")


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
            cell: Estimate.over_seeds([_value(table, names, layer) for table in tables])
            for cell, names in cell_names(first, second).items()
        }
        for first, second in combinations(shortcuts, 2)
    }


def _value(table: OverlapTable, names: tuple[str, str], layer: str | None) -> float:
    i, j = (table.names.index(name) for name in names)
    return float((table.pooled if layer is None else table.by_layer[layer])[i, j])
