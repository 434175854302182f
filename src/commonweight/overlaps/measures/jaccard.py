"""Jaccard index: how many of the weights that either of two masks keeps are kept by both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from commonweight.overlaps.measures.gram import checked, pair_gram, without_rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint


def jaccard_index(mask1: ArrayLike | Tensor | Footprint, mask2: ArrayLike | Tensor | Footprint) -> float:
    """Compute the Jaccard index of two masks: ``|A ∩ B| / |A ∪ B|``.

    Source: Jaccard (1912), https://doi.org/10.1111/j.1469-8137.1912.tb05611.x. Independent masks of densities d₁ and
    d₂ have ``d₁d₂ / (d₁ + d₂ − d₁d₂)`` by chance.

    Args:
        mask1: Bits (bool, or the numbers 0 and 1), any shape: NumPy array, torch tensor or nested lists; or a
            footprint of kind ``supermask``.
        mask2: The other, of the same shape; a footprint if ``mask1`` is one.

    Returns:
        From 0 (no weight in both) to 1 (the same weights); nan if both are empty. Of two footprints, the pooled value.

    Raises:
        UsageError: If the shapes differ or an entry is neither 0 nor 1.
        NotComparableError: If two footprints differ in parameters.

    Example:
        >>> jaccard_index([True, True, False, False], [True, False, True, False])
        0.3333333333333333
    """
    return float(from_gram(pair_gram("supermask", mask1=mask1, mask2=mask2))[0, 1])


def from_gram(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute all Jaccard indices from the Gram matrix of the bits, ``G_ij / (G_ii + G_jj − G_ij)``; nan if empty."""
    matrix = checked(G)
    kept = np.diagonal(matrix)
    union = kept[:, None] + kept[None, :] - matrix
    return without_rounding(matrix / np.where(union > 0, union, np.nan))
