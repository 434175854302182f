"""Several tensors of one shape, read together as matrices, in slabs of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from commonweight.overlaps.gram import Sliceable, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

ENTRIES_PER_SLAB = 2**23
"""Of all tensors together."""


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
    """Tell the shape of a tensor read as a matrix: its first dimension is the rows, all others the columns.

    Args:
        shape: Of the tensor.

    Returns:
        Rows and columns; a vector or number is one row.

    Example:
        >>> matrix_shape((16, 3, 5, 5)), matrix_shape((7,)), matrix_shape(())
        ((16, 75), (1, 7), (1, 1))
    """
    if len(shape) < 2:
        return 1, int(np.prod(shape, dtype=np.int64))
    return shape[0], int(np.prod(shape[1:], dtype=np.int64))


def slabs(sources: Sequence[Mapping[str, Tensor]], name: str, entries: int = ENTRIES_PER_SLAB) -> Iterator[Slab]:
    """Read one tensor of several footprints or folds.

    Args:
        sources: Where the tensors live, in memory or :class:`~commonweight.overlaps.gram.Sliceable`.
        name: Which tensor; of one shape in all of them.
        entries: The most entries held at a time, of all sources together.

    Yields:
        Slabs that cover every entry once.
    """
    shape = shape_of(sources[0], name)
    rows, columns = matrix_shape(shape)
    each = max(1, entries // len(sources))
    if len(shape) < 2:
        for left in range(0, columns, each):
            yield Slab([_vector(source, name, left, left + each) for source in sources], 0, left, (rows, columns))
        return
    high = max(1, each // max(1, columns))
    for top in range(0, rows, high):
        for left in range(0, columns, each):
            parts = [_rows(source, name, top, min(rows, top + high))[:, left : left + each] for source in sources]
            yield Slab(parts, top, left, (rows, columns))


def _vector(source: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    whole = shape_of(source, name)
    if isinstance(source, Sliceable) and whole:
        return source.rows(name, start, min(stop, whole[0])).reshape(1, -1)
    return source[name].detach().reshape(1, -1)[:, start:stop]


def _rows(source: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    part = source.rows(name, start, stop) if isinstance(source, Sliceable) else source[name][start:stop]
    return part.detach().reshape(stop - start, -1)
