"""What a sequence of tasks came to: one number each from the accuracy matrix and from learning curves.

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
    """ACC, the mean over all j of R[T-1, j] (Lopez-Paz and Ranzato 2017, https://arxiv.org/abs/1706.08840)."""
    return float(_checked(R)[-1].mean())


def backward_transfer(R: Array) -> float:
    """BWT, the mean over j < T-1 of R[T-1, j] - R[j, j], negative where tasks were forgotten (the same source)."""
    R = _checked(R)
    return float((R[-1, :-1] - np.diagonal(R)[:-1]).mean()) if len(R) > 1 else math.nan


def forgetting(R: Array) -> float:
    """Average over j < T-1 the best of R[j, j], …, R[T-2, j] less R[T-1, j]."""
    # Chaudhry et al. (2018), https://arxiv.org/abs/1801.10112, but the best is looked for from l = j on, where the task
    # was learned; the rows before it are undefined here. The last row is not among them, so the measure is negative
    # where a task ended better than it ever was before.
    R = _checked(R)
    last = len(R) - 1
    return float(np.mean([R[j:last, j].max() - R[last, j] for j in range(last)])) if last else math.nan


def curve_area(steps: Sequence[int], accuracies: Sequence[float]) -> float:
    """Compute the mean height of a learning curve by the trapezoid rule: 1 is a task solved from the first step."""
    if len(steps) != len(accuracies):
        raise UsageError(f"a curve has one accuracy per step, got {len(steps)} steps and {len(accuracies)} accuracies")
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if (np.diff(x) <= 0).any():
        raise UsageError(f"the steps of a curve must rise, got {list(steps)}")
    if len(x) < 2:
        return math.nan
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))


def area_gain(area: float, reference: float) -> float:
    """Compute the part of the missing area that help recovers: (A - A_ref) / (1 - A_ref), nan if A_ref is 1."""
    # Forward transfer of Wołczyk et al. (2021), https://arxiv.org/abs/2105.10919, with classic as the reference.
    return (area - reference) / (1 - reference) if reference < 1 else math.nan


def rank_correlation(values: Array, truth: Array) -> float:
    """Compute Spearman's rank correlation of what is known on both sides; nan for fewer than three pairs."""
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
