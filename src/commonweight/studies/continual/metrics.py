r"""What a sequence of tasks came to: one number each from the accuracy matrix and from learning curves.

The accuracy matrix R has ``R[i, j]``: test accuracy on task j, measured after task i was learned. Entries with j > i
are nan: a network with one mask per task has none yet for a later task, so forward transfer in the sense of Lopez-Paz
and Ranzato (2017) is not defined here; the gain of the learning curve takes its place.

Names of these measures mean different things in different libraries; the formulas below are what is meant here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST_RANKED = 3
"""Pairs: two always correlate."""


def average_accuracy(R: Array) -> float:
    r"""Average the final accuracies: ``ACC``.

    .. math:: \mathrm{ACC} = \frac1T \sum_{j=0}^{T-1} R_{T-1,j}

    Source: Lopez-Paz and Ranzato (2017), https://arxiv.org/abs/1706.08840. Deviation: none.

    Args:
        R: Accuracy matrix ``[T, T]``, entries in [0, 1] or nan.

    Returns:
        In [0, 1]; nan if an entry of the last row is undefined.

    Raises:
        UsageError: If R is not a square matrix of accuracies.

    Example:
        >>> average_accuracy(np.array([[0.9, np.nan], [0.7, 0.9]]))
        0.8
    """
    return float(_checked(R)[-1].mean())


def backward_transfer(R: Array) -> float:
    r"""Compute what later tasks did to earlier ones: ``BWT``, negative where they were forgotten.

    .. math:: \mathrm{BWT} = \frac1{T-1} \sum_{j=0}^{T-2} R_{T-1,j} - R_{j,j}

    Source: Lopez-Paz and Ranzato (2017), https://arxiv.org/abs/1706.08840. Deviation: none.

    Args:
        R: Accuracy matrix ``[T, T]``, entries in [0, 1] or nan.

    Returns:
        In [-1, 1]; nan for fewer than two tasks.

    Raises:
        UsageError: If R is not a square matrix of accuracies.

    Example:
        >>> round(backward_transfer(np.array([[0.9, np.nan], [0.7, 0.9]])), 12)
        -0.2
    """
    R = _checked(R)
    return float((R[-1, :-1] - np.diagonal(R)[:-1]).mean()) if len(R) > 1 else math.nan


def forgetting(R: Array) -> float:
    r"""Compute how far each earlier task fell below its best.

    .. math:: F = \frac1{T-1} \sum_{j=0}^{T-2} \Bigl(\max_{j \le l < T-1} R_{l,j}\Bigr) - R_{T-1,j}

    Source: Chaudhry et al. (2018), https://arxiv.org/abs/1801.10112. Deviation: the maximum starts at l = j, where the
    task was learned; the rows before it are undefined here. The last row is not part of the maximum, so F is negative
    where a task ended better than it ever was before.

    Args:
        R: Accuracy matrix ``[T, T]``, entries in [0, 1] or nan.

    Returns:
        In [-1, 1]; nan for fewer than two tasks.

    Raises:
        UsageError: If R is not a square matrix of accuracies.

    Example:
        >>> nan = np.nan
        >>> round(forgetting(np.array([[0.8, nan, nan], [0.9, 0.9, nan], [0.6, 0.9, 0.9]])), 12)
        0.15
    """
    R = _checked(R)
    last = len(R) - 1
    return float(np.mean([R[j:last, j].max() - R[last, j] for j in range(last)])) if last else math.nan


def curve_area(steps: Sequence[int], accuracies: Sequence[float]) -> float:
    r"""Compute the mean height of a learning curve, by the trapezoid rule.

    .. math:: A = \frac1{x_n - x_0} \sum_{k=1}^{n} (x_k - x_{k-1}) \frac{y_k + y_{k-1}}2

    Args:
        steps: Optimiser steps at which accuracy was measured, rising.
        accuracies: The accuracies there, in [0, 1].

    Returns:
        In [0, 1]: 1 is a task that was solved from the first step; nan for fewer than two points.

    Raises:
        UsageError: If the steps do not rise, or the two differ in length.

    Example:
        >>> curve_area([0, 10, 30], [0.0, 0.8, 0.8])
        0.6666666666666666
    """
    if len(steps) != len(accuracies):
        raise UsageError(f"a curve has one accuracy per step, got {len(steps)} steps and {len(accuracies)} accuracies")
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if (np.diff(x) <= 0).any():
        raise UsageError(f"the steps of a curve must rise, got {list(steps)}")
    if len(x) < 2:
        return math.nan
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))


def area_gain(area: float, reference: float) -> float:
    r"""Compute how much of the missing area help recovers: forward transfer in the sense of Continual World.

    .. math:: \mathrm{gain} = \frac{A - A_\mathrm{ref}}{1 - A_\mathrm{ref}}

    Source: Wołczyk et al. (2021), https://arxiv.org/abs/2105.10919, with the classic approach as the reference.

    Args:
        area: Area of the curve, in [0, 1].
        reference: Area of the classic curve over the same steps of the same task and seed.

    Returns:
        1 where nothing is left to learn, 0 for no gain, negative for harm; nan if the reference is 1.

    Example:
        >>> round(area_gain(0.9, 0.8), 12)
        0.5
    """
    return (area - reference) / (1 - reference) if reference < 1 else math.nan


def rank_correlation(values: Array, truth: Array) -> float:
    """Compute Spearman's rank correlation; ties get their mean rank.

    Args:
        values: Numbers ``[n]``.
        truth: Others ``[n]``; pairs with a nan in either are left out.

    Returns:
        In [-1, 1]; nan for fewer than three pairs, or where one side is constant.

    Example:
        >>> rank_correlation(np.array([1.0, 5.0, 6.0]), np.array([0.1, 0.2, 0.9]))
        1.0
    """
    from scipy.stats import rankdata  # type: ignore[import-untyped,unused-ignore]

    known = np.isfinite(values) & np.isfinite(truth)
    a, b = rankdata(values[known]), rankdata(truth[known])
    if len(a) < LEAST_RANKED or not np.ptp(a) or not np.ptp(b):
        return math.nan
    return round(float(np.corrcoef(a, b)[0, 1]), 12)


def _checked(R: Array) -> Array:
    R = np.asarray(R, dtype=np.float64)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not len(R):
        raise UsageError(f"an accuracy matrix is square, [tasks, tasks], got shape {list(R.shape)}")
    if (R < 0).any() or (R > 1).any():
        raise UsageError("accuracies are shares, from 0 to 1; divide percentages by 100")
    return R
