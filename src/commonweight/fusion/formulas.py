"""The three formulas on one tensor of every model, read one after the other.

Every sum is written as a start plus weighted differences from it. The models of a fusion lie close together, so the
differences are small and their rounding smaller still; equal models give themselves, bit for bit. No loop keeps a
tensor of a model, except the start, while it asks for the next: that is why they call ``next`` and do not ``zip``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


def average(tensors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    r"""Average weights.

    .. math:: \theta = \sum_i w_i \theta_i = \theta_0 + \sum_i w_i (\theta_i - \theta_0), \qquad \sum_i w_i = 1

    Source: Wortsman et al. (2022), "Model soups", https://arxiv.org/abs/2203.05482, where the weights are equal.

    Args:
        tensors: The same tensor of each model. Shape ``[*w]``, floating; read one at a time.
        weights: One per model, of any sign, with the sum 1; a model of weight 0 changes no bit.

    Returns:
        ``[*w]``, float64 for float64 tensors, else float32; it may be the first tensor itself.

    Raises:
        ValueError: If every weight is 0.

    Example:
        >>> from torch import tensor
        >>> average([tensor([1.0, 4.0]), tensor([3.0, 0.0])], [0.25, 0.75])
        tensor([2.5000, 1.0000])
    """
    start = moved = None
    each = iter(tensors)
    for weight in weights:
        if weight == 0:
            next(each)
        elif start is None:
            start = _widened(next(each))
        else:
            step = (_widened(next(each)) - start).mul_(weight)
            moved = step if moved is None else moved.add_(step)
    if start is None:
        raise ValueError("expected weights with the sum 1, got none that is not 0")
    return start if moved is None else moved.add_(start)


def task_arithmetic(base: Tensor, tensors: Iterable[Tensor], weights: Sequence[float], scale: float) -> Tensor:
    r"""Add task vectors to a base.

    .. math:: \theta = \theta_b + \lambda \sum_i w_i (\theta_i - \theta_b)

    Source: Ilharco et al. (2023), https://arxiv.org/abs/2212.04089, where every w is 1 and λ is chosen on held-out
    data; a negative weight takes a task away.

    Args:
        base: The tensor of the base. Shape ``[*w]``, floating.
        tensors: The same tensor of each model. Shape ``[*w]``; read one at a time.
        weights: One per model, of any sign and sum.
        scale: λ.

    Returns:
        ``[*w]``, float64 for float64 tensors, else float32; it may be the base itself.

    Example:
        >>> from torch import tensor
        >>> task_arithmetic(tensor([1.0]), [tensor([2.0]), tensor([4.0])], [1.0, 1.0], 0.5)
        tensor([3.])
    """
    start = _widened(base)
    moved = None
    each = iter(tensors)
    for weight in weights:
        if weight * scale == 0:
            next(each)
        else:
            step = (_widened(next(each)) - start).mul_(weight * scale)
            moved = step if moved is None else moved.add_(step)
    return start if moved is None else moved.add_(start)


class FisherAverage(NamedTuple):
    """A Fisher-weighted average, and where it was a plain one."""

    values: Tensor
    """``[*w]``, float64."""

    dead: int
    """Entries whose Fisher is at the floor in every model that counts: there the average is the plain one."""


def fisher_average(
    tensors: Iterable[Tensor], fishers: Iterable[Tensor], weights: Sequence[float], floor: float
) -> FisherAverage:
    r"""Average each weight by how much it matters to each model.

    .. math:: \theta = \frac{\sum_i w_i \max(F_i, \varepsilon)\, \theta_i}{\sum_i w_i \max(F_i, \varepsilon)}

    Where no Fisher exceeds the floor ε (dead parameters) this is the plain weighted average.

    Source: Matena & Raffel (2022), https://arxiv.org/abs/2111.09832, and the floor of their code with
    ``favor_target_model=False``: its default floors the first model only, so that dead weights are the first model's,
    and the order of the models matters; here it never does.

    Args:
        tensors: The same tensor of each model. Shape ``[*w]``, floating; read one at a time.
        fishers: Its Fisher for each model, at least 0. Shape ``[*w]``, float64; only their ratio counts.
        weights: One per model, at least 0, with the sum 1.
        floor: ε, above 0, in the unit of the Fishers.

    Returns:
        The average, and the number of entries at the floor in every model of weight above 0.

    Raises:
        ValueError: If every weight is 0.

    Example:
        >>> from torch import tensor
        >>> theta = [tensor([1.0, 1.0]), tensor([3.0, 3.0])]
        >>> found = fisher_average(theta, [tensor([3.0, 0.0]), tensor([1.0, 0.0])], [0.5, 0.5], floor=1e-6)
        >>> found.values.tolist(), found.dead
        ([1.5, 2.0], 1)
    """
    start = moved = whole = dead = None
    each, importances = iter(tensors), iter(fishers)
    for weight in weights:
        if weight == 0:
            next(each)
            next(importances)
            continue
        fisher = next(importances)
        is_dead = fisher <= floor
        share = fisher.to(torch.float64).clamp_min(floor).mul_(weight)
        if start is None or whole is None or dead is None:
            start, whole, dead = next(each).to(torch.float64), share, is_dead
        else:
            step = (next(each).to(torch.float64) - start).mul_(share)
            moved = step if moved is None else moved.add_(step)
            whole.add_(share)
            dead &= is_dead
    if start is None or whole is None or dead is None:
        raise ValueError("expected weights with the sum 1, got none that is not 0")
    return FisherAverage(start if moved is None else moved.div_(whole).add_(start), int(dead.sum()))


def _widened(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
