"""Accumulators of squared gradients, and the scratch memory that adding to them needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commonweight.footprints.folds import accurate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 2**21
"""Entries of a weight that are worked on at a time, so that accumulator and scratch stay in the processor's cache."""

SURE = 1e-15
"""A gradient with a larger entry loses nothing that counts by the squares of others that are 0 in float32."""

SMALL = 2**14
"""Entries that are not worth dividing further."""


class Workspace:
    """One scratch buffer, as large as the largest block asked for, used again and again."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def like(self, block: Tensor) -> Tensor:
        """Give scratch of the shape, layout, type and device of a block of an accumulator."""
        if (
            self._buffer.numel() < block.numel()
            or self._buffer.dtype != block.dtype
            or self._buffer.device != block.device
        ):
            self._buffer = torch.empty(block.numel(), dtype=block.dtype, device=block.device)
        scratch = self._buffer[: block.numel()]
        rows, columns = block.shape
        return scratch.view(columns, rows).t() if is_transposed(block) else scratch.view(rows, columns)


def new_total(parameter: Tensor) -> Tensor:
    """Make an accumulator for a parameter: zeros in float32, or float64 for a float64 parameter."""
    # A wide matrix is laid out column by column: the per-example product is much faster into the longer side.
    dtype = accurate(parameter.dtype)
    if parameter.dim() == 2 and parameter.shape[1] > parameter.shape[0]:
        return torch.zeros(parameter.shape[::-1], dtype=dtype, device=parameter.device).t()
    return torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)


def in_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one shape into the same blocks of rows."""
    views = [tensor if tensor.dim() else tensor.reshape(1) for tensor in tensors]
    rows, entries = len(views[0]), views[0].numel()
    most = max(SMALL, min(BLOCK, entries // 4))
    step = max(1, most * rows // max(1, entries))
    for first in range(0, rows, step):
        yield tuple(view[first : first + step] for view in views)


def add_square(total: Tensor, gradient: Tensor) -> Tensor:
    """Add the square of one gradient to an accumulator, without a copy of either."""
    trace = torch.zeros((), dtype=torch.float64, device=total.device)
    for block, part in in_blocks(total, gradient):
        own = part.to(total.dtype)
        block.addcmul_(own, own)
        trace += own.square().sum()
    return trace


def exact_trace(gradient: Tensor, trace: Tensor) -> Tensor:
    """Sum squares of which some may be 0 in float32; ``trace`` is the sum without these."""
    return trace if largest_magnitude(gradient) > SURE else gradient.double().square().sum()


def subtract_square(total: Tensor, gradient: Tensor) -> None:
    """Take the square of one gradient from an accumulator, without a copy of either."""
    for block, part in in_blocks(total, gradient):
        own = part.to(total.dtype)
        block.addcmul_(own, own, value=-1)


def largest_magnitude(tensor: Tensor) -> float:
    """Find the largest magnitude, without a copy of the tensor."""
    low, high = tensor.aminmax()
    return float(torch.maximum(-low, high))  # nan stays nan


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Find the largest magnitude of a difference, without a copy of either tensor."""
    return worst(largest_magnitude(one - other) for one, other in in_blocks(a, b))


def worst(gaps: Iterable[float]) -> float:
    """Find the largest of some numbers; nan is the largest of all."""
    return max(gaps, key=lambda gap: (math.isnan(gap), gap))


def is_transposed(matrix: Tensor) -> bool:
    """Tell whether a matrix is laid out column by column."""
    return matrix.dim() == 2 and matrix.stride(0) < matrix.stride(1)
