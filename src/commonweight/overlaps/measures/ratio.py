"""From a Gram matrix to ratios: the part that the measures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDING = 1e-12


def checked(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Check that a matrix is square."""
    matrix = np.asarray(G, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UsageError(f"expected a Gram matrix of shape [n, n], got shape {list(matrix.shape)}")
    return matrix


def cosine_ratio(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide every entry by the lengths of its two rows: ``G_ij / (sqrt(G_ii) sqrt(G_jj))``."""
    # Computed as ``G_ij / g · sqrt(g) / sqrt(s)`` with the larger g and the smaller s of the two ``G_ii``: the product
    # ``G_ii G_jj`` can leave the range of float64, and two identical rows give exactly 1.
    matrix = checked(G)
    diagonal = np.diagonal(matrix)
    positive = np.where(diagonal > 0, diagonal, np.nan)
    larger, smaller = np.maximum.outer(positive, positive), np.minimum.outer(positive, positive)
    ratios = without_rounding(matrix / larger * (np.sqrt(larger) / np.sqrt(smaller)))
    np.fill_diagonal(ratios, np.where(diagonal > 0, 1.0, np.nan))
    return ratios


def without_rounding(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take away rounding noise beyond 1: what lies within 1e-12 above 1, or below -1, becomes 1 or -1."""
    # Anything further out is left as it is: it is not rounding, and should be seen.
    noise = (np.abs(ratios) > 1) & (np.abs(ratios) <= 1 + ROUNDING)
    return np.where(noise, np.sign(ratios), ratios)


def frozen(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make an array read only."""
    array.flags.writeable = False
    return array
