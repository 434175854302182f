"""Accumulators of squared gradients, and the scratch memory that adding to them needs."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**21
"""Entries of a weight that are worked on at a time, so that accumulator and scratch stay in the processor's cache."""


class Workspace:
    """One scratch buffer, as large as the largest block asked for, used again and again."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def like(self, block: Tensor) -> Tensor:
        """Give scratch of the shape, layout, type and device of a block of an accumulator.

        Args:
            block: A matrix whose smaller stride is 1.

        Returns:
            Uninitialised memory; the next call hands out the same.
        """
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
    """Make an accumulator for a parameter: zeros in float32, or float64 for a float64 parameter.

    A wide matrix is laid out column by column: the per-example product is much faster into the longer side.

    Args:
        parameter: The parameter.

    Returns:
        Zeros of its shape.
    """
    dtype = accurate(parameter.dtype)
    if parameter.dim() == 2 and parameter.shape[1] > parameter.shape[0]:
        return torch.zeros(parameter.shape[::-1], dtype=dtype, device=parameter.device).t()
    return torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)


def is_transposed(matrix: Tensor) -> bool:
    """Tell whether a matrix is laid out column by column.

    Args:
        matrix: A matrix.

    Returns:
        Whether its rows are the faster dimension.
    """
    return matrix.dim() == 2 and matrix.stride(0) < matrix.stride(1)


def accurate(dtype: torch.dtype) -> torch.dtype:
    """Tell the type in which gradients of a parameter are multiplied and summed.

    Args:
        dtype: The parameter's type.

    Returns:
        float64 for float64, else float32.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
