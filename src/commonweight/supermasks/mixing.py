r"""How prior tasks enter the scores of the current one.

.. math::
    s' = (1 - \beta)\, s + \beta\, \text{sg}(\text{rms}(s))\, u, \qquad
    u = \text{sg}\Big(\frac{\sum_i \alpha_i \hat s_i}{\text{rms}(\sum_i \alpha_i \hat s_i)}\Big), \qquad
    \hat s_i = \frac{s_i}{\text{rms}(s_i)}

with :math:`\hat s_i = 2 m_i - 1` where the scores of a prior task were dropped. Scores are divided by their root mean
square because trained ones are several times larger than fresh ones: one beta then means the same in every layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commonweight.base.errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Sequence


def root_mean_square(scores: Tensor) -> Tensor:
    """Measure the size of scores.

    Args:
        scores: Any shape.

    Returns:
        A scalar, in float32 or the wider type of the scores.

    Example:
        >>> root_mean_square(torch.tensor([3.0, -3.0]))
        tensor(3.)
    """
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
    """Mix the current scores with a direction.

    Args:
        scores: The current task's. The gradient into them is ``1 - beta`` times that of the result.
        towards: The direction ``u``.
        beta: Strength of the influence, from 0 to 1.

    Returns:
        The mixture, in the type of the scores: what a mask rule sees here is what :meth:`consolidate` would store.

    Example:
        >>> mixed(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 1.0]), 0.25)
        tensor([ 2., -1.])
    """
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
