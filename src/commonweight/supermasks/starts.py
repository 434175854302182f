"""Where networks start: the one place that draws weights and scores.

Everything is drawn from a generator of its own, keyed by the seed, the weight's name and, for scores, the task.
PyTorch's and NumPy's global random states are neither read nor moved, and a draw does not depend on what else was drawn
before. The bit stream is NumPy's PCG64, which NumPy promises not to change.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.nn.modules.conv import _ConvNd

_GAIN = math.sqrt(2)


def fan_in(layer: nn.Linear | _ConvNd) -> float:
    """Count the products that one output of a layer sums; their mean, at least 1, where a stride spreads them."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    products = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return max(products / math.prod(layer.stride), 1.0) if layer.transposed else products


def signed_constant(shape: torch.Size, fan: float, seed: int, name: str) -> Tensor:
    r"""Draw a weight of one size and random signs, :math:`\pm\sqrt{2 / \text{fan in}}`."""
    # Source: Ramanujan et al. (2020), https://arxiv.org/abs/1911.13299, "signed Kaiming constant".
    n = math.prod(shape)
    raw = _stream(seed, "weight", name).random_raw(-(-n // 64)).astype("<u8")
    signs = np.unpackbits(raw.view(np.uint8), count=n).astype(np.float32) * 2 - 1
    return torch.from_numpy(signs).view(shape) * (_GAIN / math.sqrt(fan))


def first_scores(shape: torch.Size, fan: float, seed: int, name: str, task: int | None) -> Tensor:
    r"""Draw the scores a task starts from, uniform on :math:`\pm 1/\sqrt{\text{fan in}}`."""
    # That is ``kaiming_uniform_(a=sqrt(5))``, as SupSup starts its scores (Wortsman et al. 2020).
    n = math.prod(shape)
    raw = _stream(seed, "scores", name, "shared" if task is None else str(task)).random_raw(-(-n // 2)).astype("<u8")
    unit = (raw.view("<u4")[:n] >> 8).astype(np.float32) * np.float32(2**-24)
    return torch.from_numpy(unit).view(shape).mul_(2).sub_(1).div_(math.sqrt(fan))


@dataclass(frozen=True)
class ScoreStart:
    """Where a weight's scores start."""

    seed: int
    name: str
    fan_in: float
    shared: bool

    def draw(self, task: int, like: Tensor) -> Tensor:
        """Draw the start of a task's scores."""
        drawn = first_scores(like.shape, self.fan_in, self.seed, self.name, None if self.shared else task)
        return torch.empty_like(like, requires_grad=False).copy_(drawn)


def _stream(seed: int, *key: str) -> np.random.PCG64:
    digest = hashlib.sha256("\0".join(key).encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]
    return np.random.PCG64(np.random.SeedSequence([seed, *words]))
