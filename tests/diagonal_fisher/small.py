"""Small models, batches and comparisons shared by the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 3


def examples(size: int = 8, width: int = 6, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, width, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (size,), generator=generator)


def small_mlp(outputs: int = CLASSES, *, seed: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def rows(batch: Any, positions: Any) -> Any:
    """Some rows of a batch, by positions, every tensor indexed."""
    if isinstance(batch, dict):
        return {key: value[positions] for key, value in batch.items()}
    return tuple(value[positions] for value in batch)


def in_batches(batch: Any, size: int) -> list[Any]:
    count = len(next(iter(batch.values())) if isinstance(batch, dict) else batch[0])
    return [rows(batch, slice(first, first + size)) for first in range(0, count, size)]


def gap(a: Any, b: Any) -> float:
    """Largest difference of two sets of tensors, as a share of the largest entry."""
    assert set(a) == set(b)
    largest = max(float(b[name].abs().max()) for name in b)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in b) / largest
