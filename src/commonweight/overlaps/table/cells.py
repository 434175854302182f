"""Parts of a laid-out table that are the same whatever the footprints are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.text import Grid, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


WHOLE = "whole network"


Value = float | Callable[[int], str]
"""A number, or a cell that is written from the number of digits after the point."""


class Column(NamedTuple):
    """A column of the table of two footprints."""

    head: str
    """What it shows."""

    values: Mapping[str, Value]
    """Per row."""

    pooled: Value | None = None
    """Of all weights as one; None where there is no such total."""

    layer_mean: Value | None = None
    """Mean over layers; None where there is no such total."""


def cell(value: Value, decimals: int) -> str:
    """Write the cell of a column."""
    return value(decimals) if callable(value) else number(value, decimals)


def matrix(
    names: Sequence[str],
    words: str,
    values: NDArray[np.float64],
    decimals: int,
    counts: NDArray[np.int64] | None = None,
) -> Grid:
    """Lay out a value for every pair."""

    def entry(i: int, j: int) -> str:
        text = number(values[i, j], decimals)
        return text if counts is None else f"{text} ({counts[i, j]})"

    every = range(len(names))
    return Grid(
        words,
        ("", *names),
        tuple((names[i], *(entry(i, j) for j in every)) for i in every),
    )
