r"""How prior tasks enter the scores of the current one.

.. math::
    s' = (1 - \beta)\, s + \beta\, \text{sg}(\text{rms}(s))\, u, \qquad
    u = \text{sg}\Big(\frac{\sum_i \alpha_i \hat s_i}{\text{rms}(\sum_i \alpha_i \hat s_i)}\Big), \qquad
    \hat s_i = \frac{s_i}{\text{rms}(s_i)}

with :math:`\hat s_i = 2 m_i - 1` where the scores of a prior task were dropped. Scores are divided by their root mean
square because trained ones are several times larger than fresh ones: one beta then means the same in every layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commonweight.base.errors import MeasurementError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True)
class Influence:
    """Prior tasks that take part in the training of one."""

    alphas: Mapping[int, float]
    """Prior task's index -> its alpha, over 0; never empty."""

    beta: float


def root_mean_square(scores: Tensor) -> Tensor:
    """Measure the size of scores: a scalar, in float32 or their wider type."""
    return _wide(scores).square().mean().sqrt()


def direction(priors: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Mix the scores of prior tasks into one direction of size 1."""
    total = torch.zeros_like(_wide(priors[0][1].detach()))
    for alpha, scores in priors:
        size = root_mean_square(scores.detach())
        _check_size(size, "the scores of a prior task are")
        total += _wide(scores.detach()) * (alpha / size)
    size = root_mean_square(total)
    _check_size(size, "the weighted sum of the prior tasks' scores is")
    return total / size


def mixed(scores: Tensor, towards: Tensor, beta: float) -> Tensor:
    """Mix the current scores with a direction, in their type: what a mask rule sees is what ``consolidate`` stores."""
    wide = _wide(scores)
    size = root_mean_square(scores.detach())
    return torch.lerp(wide, towards.to(wide.dtype) * size, beta).to(scores.dtype)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_size(size: Tensor, what: str) -> None:
    value = float(size)
    if not 0 < value < float("inf"):
        raise MeasurementError(
            f"{what} of size {value}: expected a finite size over 0, so that it points somewhere; leave these alphas "
            "out"
        )


def read_alphas(
    alphas: Mapping[str, Mapping[str, float]],
    beta: float,
    *,
    task: int,
    tasks: Sequence[str],
    finished: Collection[int],
    masked: Collection[str],
) -> dict[str, Influence]:
    """Read alphas by name."""
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
        raise UsageError(f"beta must be from 0 (classic) to 1 (prior tasks alone), got {beta!r}")
    influences = {}
    for name, row in alphas.items():
        if name not in masked:
            raise UsageError(f"alphas for {name!r}: expected names of masked weights, which are {list(masked)}")
        entries = {_prior(prior, task, tasks, finished): _alpha(name, prior, value) for prior, value in row.items()}
        positive = {index: value for index, value in entries.items() if value > 0}
        if positive and beta > 0:
            influences[name] = Influence(positive, float(beta))
    return influences


def _prior(prior: str, task: int, tasks: Sequence[str], finished: Collection[int]) -> int:
    if prior not in tasks:
        raise UsageError(f"alphas name the task {prior!r}: expected a prior task, which are {list(tasks[:task])}")
    index = tasks.index(prior)
    if index >= task:
        raise UsageError(
            f"alphas of {tasks[task]!r} name {prior!r}: expected tasks added before it, not itself or a later one"
        )
    if index not in finished:
        raise UsageError(
            f"the prior task {prior!r} is not finished, so its scores may still move; call finish({prior!r})"
        )
    return index


def _alpha(name: str, prior: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"alpha of {name!r} for {prior!r} must be a finite number of at least 0, got {value!r}")
    return float(value)
