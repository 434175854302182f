r"""A null for the similarity of two layers: what is left of it when the units of one side are shuffled.

Shuffling keeps everything a vector is made of and takes away only which unit is which. A similarity that shuffled units
have too says nothing about the tasks: two vectors of positive numbers are alike whatever they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POINT = 0.95
DRAWS = 999
_TIE = 1e-9


def permutation_null(
    similarity: Callable[[NDArray[np.intp]], Array], units: int, observed: Array, seed: tuple[int, ...], draws: int
) -> tuple[Array, Array]:
    """Compare observed similarities with those of shuffled units."""
    generator = np.random.default_rng(seed)
    values = np.stack([similarity(generator.permutation(units)) for _ in range(draws)])
    reached = (values >= observed - _TIE).sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + draws))
    return np.asarray(np.quantile(values, POINT, axis=0)), p
