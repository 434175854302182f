"""Tensors of footprints read a slice at a time, so that memory does not depend on the size of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

ENTRIES_PER_SLICE = 2**18


class Sliceable(Mapping[str, "Tensor"], ABC):
    """A mapping of tensors that need not be read whole, such as those of a saved footprint."""

    @abstractmethod
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one tensor along its first dimension."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape without reading it."""


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Tell the shape of one tensor, without reading it where that is possible."""
    return tensors.shape(name) if isinstance(tensors, Sliceable) else tuple(tensors[name].shape)


def slices(tensors: Mapping[str, Tensor], name: str, entries: int = ENTRIES_PER_SLICE) -> Iterator[Tensor]:
    """Read one tensor in flat slices, in order."""
    shape = shape_of(tensors, name)
    if not shape:
        yield tensors[name].detach().reshape(1)
        return
    row = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, entries // max(1, row))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        part = tensors[name] if stop - start == shape[0] else part_of(tensors, name, start, stop)
        yield from torch.split(part.detach().reshape(-1), entries)


class Slab(NamedTuple):
    """A rectangle of each of several matrices."""

    parts: list[Tensor]
    """One ``[rows, columns]`` per matrix."""

    row: int
    """Where it begins."""

    column: int
    """Where it begins."""

    shape: tuple[int, int]
    """Of the whole matrix."""


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Read a shape as rows, its first dimension, and columns, all others; a vector or number is one row."""
    if len(shape) < 2:
        return 1, int(np.prod(shape, dtype=np.int64))
    return shape[0], int(np.prod(shape[1:], dtype=np.int64))


def slabs(
    sources: Sequence[Mapping[str, Tensor]], name: str, entries: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Slab]:
    """Read one tensor of several footprints or folds, all together in slabs of some entries; of shares, one."""
    shape = shape_of(sources[0], name)
    rows, columns = matrix_shape(shape)
    each = max(1, entries // len(sources))
    if len(shape) < 2:
        for left in range(0, columns if share[0] == 0 else 0, each):
            yield Slab([_vector(source, name, left, left + each) for source in sources], 0, left, (rows, columns))
        return
    high = max(1, each // max(1, columns))
    for top in range(0, rows, high)[share[0] :: share[1]]:
        for left in range(0, columns, each):
            bottom = min(rows, top + high)
            parts = [_rows(source, name, top, bottom, rows)[:, left : left + each] for source in sources]
            yield Slab(parts, top, left, (rows, columns))


def _vector(source: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    whole = shape_of(source, name)
    if not whole or (start == 0 and stop >= whole[0]):
        return source[name].detach().reshape(1, -1)
    return part_of(source, name, start, min(stop, whole[0])).reshape(1, -1)


def _rows(source: Mapping[str, Tensor], name: str, start: int, stop: int, rows: int) -> Tensor:
    part = source[name] if stop - start == rows else part_of(source, name, start, stop)
    return part.detach().reshape(stop - start, -1)


def part_of(source: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    """Read a slice of one tensor along its first dimension, from wherever it lies."""
    return source.rows(name, start, stop) if isinstance(source, Sliceable) else source[name][start:stop].detach()
