"""Gram matrices of footprints, streamed: the additive terms from which every overlap is derived.

For n footprints and one parameter, ``G = X Xᵀ`` with one row of X per footprint: ``sqrt(f)`` for a Fisher, the values
themselves for masks and activities. Gram matrices add over parameters and over slices of one, so a tensor is read a
slice at a time and memory does not depend on its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch

from commonweight.errors import MeasurementError
from commonweight.footprint.packed import Packed, byte_count
from commonweight.overlaps._values import fault, to_row_
from commonweight.overlaps.popcount import popcount_gram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprint.footprint import Footprint

ENTRIES_PER_SLICE = 2**20
BYTES_PER_SLICE = 2**18
"""Of each packed mask."""


@runtime_checkable
class Sliceable(Protocol):
    """A mapping of tensors that need not be read whole, such as those of a saved footprint."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one tensor along its first dimension."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape without reading it."""


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Tell the shape of one tensor, without reading it where that is possible.

    Args:
        tensors: The tensors of a footprint.
        name: Which of them.

    Returns:
        Its shape.
    """
    return tensors.shape(name) if isinstance(tensors, Sliceable) else tuple(tensors[name].shape)


def slices(tensors: Mapping[str, Tensor], name: str, entries: int = ENTRIES_PER_SLICE) -> Iterator[Tensor]:
    """Read one tensor in flat slices, in order.

    Args:
        tensors: The tensors of a footprint, in memory or :class:`Sliceable`.
        name: Which of them.
        entries: The most entries in one slice; at least 1. A row longer than that is split.

    Yields:
        1-D slices; tensors of equal shape give slices of equal lengths.
    """
    shape = shape_of(tensors, name)
    if not shape:
        yield tensors[name].detach().reshape(1)
        return
    row = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, entries // max(1, row))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        part = tensors.rows(name, start, stop) if isinstance(tensors, Sliceable) else tensors[name][start:stop]
        yield from torch.split(part.detach().reshape(-1), entries)


def gram_of(
    rows: Iterable[Sequence[Tensor]], count: int, prepare: Callable[[int, Tensor], None]
) -> NDArray[np.float64]:
    """Sum ``X Xᵀ`` over slices.

    Args:
        rows: For every slice, one 1-D tensor per row of X, all of one length, any dtype and device.
        count: How many rows X has, n.
        prepare: Called with the row's index and its entries in float64, to check them and turn them, in place, into
            what is multiplied.

    Returns:
        ``[n, n]``, float64, exactly symmetric; zeros if there are no entries.
    """
    total = torch.zeros(count, count, dtype=torch.float64)
    for parts in rows:
        X = torch.empty(count, parts[0].numel(), dtype=torch.float64)
        for index, part in enumerate(parts):
            X[index].copy_(part)
            prepare(index, X[index])
        total += X @ X.T
    symmetric: NDArray[np.float64] = ((total + total.T) / 2).numpy()
    return symmetric


def parameter_gram(
    footprints: Mapping[str, Footprint], parameter: str, *, entries: int = ENTRIES_PER_SLICE
) -> NDArray[np.float64]:
    """Compute the Gram matrix of one parameter over several footprints of one kind.

    Args:
        footprints: The footprints by name; the parameter has one shape in all of them. Activities between about
            1e-150 and 1e150 in size (or 0) can be squared in float64; importances and masks always can.
        parameter: Name of the parameter.
        entries: The most entries read at a time from each footprint.

    Returns:
        ``[n, n]``, float64: ``Σ sqrt(f_i f_j)`` for ``fisher``, ``Σ x_i x_j`` for ``supermask`` and ``activity``.

    Raises:
        MeasurementError: If entries are not finite, negative in a Fisher, other than 0 and 1 in a mask, or complex;
            if their sum leaves the range of float64.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprint.footprint import Footprint
        >>> a = Footprint("fisher", {"w": tensor([1.0, 4.0])}, count=1)
        >>> b = Footprint("fisher", {"w": tensor([9.0, 0.0])}, count=1)
        >>> parameter_gram({"a": a, "b": b}, "w").tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """
    names = tuple(footprints)
    kind = footprints[names[0]].kind
    packed = [footprint.tensors for footprint in footprints.values() if isinstance(footprint.tensors, Packed)]
    if kind == "supermask" and len(packed) == len(names):
        return popcount_gram(_packed_slices(packed, parameter), len(names)).astype(np.float64)

    def prepare(index: int, values: Tensor) -> None:
        complaint = fault(values, kind)
        if complaint:
            raise MeasurementError(
                f"footprint {names[index]!r}, parameter {parameter!r}: {complaint}; measure it again"
            )
        to_row_(values, kind)

    def checked(name: str) -> Iterator[Tensor]:
        for part in slices(footprints[name].tensors, parameter, entries):
            if part.is_complex():
                raise MeasurementError(
                    f"footprint {name!r}, parameter {parameter!r}: entries must be real, got {part.dtype}"
                )
            yield part

    total = gram_of(zip(*map(checked, names), strict=True), len(names), prepare)
    if not np.isfinite(total).all():
        name = names[int(np.flatnonzero(~np.isfinite(np.diagonal(total)))[0])]
        raise MeasurementError(
            f"footprint {name!r}, parameter {parameter!r}: the sum of its entries is too large for float64; "
            "scale the footprint down"
        )
    return total


def _packed_slices(masks: Sequence[Packed], parameter: str) -> Iterator[list[NDArray[np.uint8]]]:
    size = byte_count(masks[0].shape(parameter))
    for start in range(0, size, BYTES_PER_SLICE):
        yield [each.packed(parameter, start, start + BYTES_PER_SLICE).numpy() for each in masks]
