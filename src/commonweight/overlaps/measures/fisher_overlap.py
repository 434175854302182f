"""Fisher overlap: how much of the importance of two networks' weights lies in the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.overlaps.measures.gram import cosine_ratio, pair_gram

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint


def fisher_overlap(f1: ArrayLike | Tensor | Footprint, f2: ArrayLike | Tensor | Footprint) -> float:
    r"""Compute the Fisher overlap of two Fisher diagonals.

    With both scaled to unit trace, :math:`\hat f = f / \sum_k f_k`, it is

    .. math::
        1 - \tfrac12 \sum_k (\sqrt{\hat f_{1,k}} - \sqrt{\hat f_{2,k}})^2
        = \sum_k \sqrt{\hat f_{1,k} \hat f_{2,k}}

    Source: Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796. Deviation: none. Two finite samples of one
    Fisher overlap below 1, so a value mixes sharing with noise.

    Args:
        f1: A Fisher diagonal: mean squared gradients, any shape, entries finite and at least 0; the scale cancels.
            NumPy array, torch tensor or nested lists of any dtype; or a footprint of kind ``fisher``,
            ``saliency`` or ``adam_v``.
        f2: The other, of the same shape; a footprint if ``f1`` is one.

    Returns:
        From 0 (no weight matters to both) to 1 (proportional); nan if one is zero or has no entries. Of two
        footprints, the pooled value: all weights as one vector.

    Raises:
        UsageError: If the shapes differ or an entry is negative, nan or infinite.
        NotComparableError: If two footprints differ in kind, parameters, Fisher type or loss.

    Example:
        >>> fisher_overlap([1.0, 3.0], [20.0, 60.0]), fisher_overlap([1.0, 0.0], [0.0, 5.0])
        (1.0, 0.0)
        >>> round(fisher_overlap([1.0, 1.0], [1.0, 0.0]), 4)
        0.7071
    """
    return float(cosine_ratio(pair_gram("fisher", f1=f1, f2=f2))[0, 1])
