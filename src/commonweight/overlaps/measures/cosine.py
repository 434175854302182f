"""Cosine similarity: do two vectors, such as the batch-norm means of two tasks, point the same way?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.overlaps.measures.gram import cosine_ratio, pair_gram

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint


def cosine_similarity(x: ArrayLike | Tensor | Footprint, y: ArrayLike | Tensor | Footprint) -> float:
    """Compute the cosine of the angle between two vectors: ``x·y / (‖x‖ ‖y‖)``, signed.

    Args:
        x: Finite numbers, any shape (read as one vector): NumPy array, torch tensor or nested lists; or a footprint
            of kind ``activity`` or ``change``.
        y: The other, of the same shape; a footprint if ``x`` is one.

    Returns:
        From -1 (opposite) through 0 (orthogonal) to 1 (the same direction); nan if one is zero or has no entries. Of
        two footprints, the pooled value: all layers as one vector.

    Raises:
        UsageError: If the shapes differ or an entry is nan or infinite.
        NotComparableError: If two footprints differ in layers.

    Example:
        >>> cosine_similarity([1.0, 0.0], [-2.0, 0.0])
        -1.0
    """
    return float(cosine_ratio(pair_gram("activity", x=x, y=y))[0, 1])


def task_similarity(x: ArrayLike | Tensor | Footprint, y: ArrayLike | Tensor | Footprint) -> float:
    """Compute how alike two tasks are from their activity vectors: ``|cosine_similarity(x, y)|``.

    Args:
        x: As for :func:`cosine_similarity`.
        y: As for :func:`cosine_similarity`.

    Returns:
        From 0 (orthogonal) to 1 (parallel, in the same or the opposite direction); nan if one is zero.

    Raises:
        UsageError: If the shapes differ or an entry is nan or infinite.
        NotComparableError: If two footprints differ in layers.

    Example:
        >>> task_similarity([1.0, 0.0], [-2.0, 0.0])
        1.0
    """
    return abs(cosine_similarity(x, y))
