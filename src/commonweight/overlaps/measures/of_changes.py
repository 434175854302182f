"""Beside the cosine of two changes: do weights move in one direction, and which model moved farther?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from commonweight.overlaps.measures.gram import checked, without_rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sign_agreement(G: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Compute which share of the weights moved in one direction, each counted by :math:`|\Delta_a \Delta_b|`.

    .. math::
        \frac{\sum_k |\Delta_{a,k} \Delta_{b,k}| \, [\Delta_{a,k} \Delta_{b,k} > 0]}{\sum_k |\Delta_{a,k} \Delta_{b,k}|}
        = \tfrac12 \left(1 + \frac{G_{ab}}{A_{ab}}\right)

    Args:
        G: Gram matrix of the changes, ``[n, n]``.
        sizes: Gram matrix A of their sizes, ``[n, n]``.

    Returns:
        ``[n, n]``, from 0 (every weight moved in opposite directions) to 1; nan where no weight moved in both.
    """
    return (1 + without_rounding(checked(G) / np.where(sizes > 0, sizes, np.nan))) / 2


def norm_ratio(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the lengths of all pairs of changes, ``‖Δ_a‖ / ‖Δ_b‖``, ``[n, n]``; nan where the second is 0."""
    lengths = np.sqrt(np.diagonal(checked(G)))
    return np.asarray(lengths[:, None] / np.where(lengths > 0, lengths, np.nan))
