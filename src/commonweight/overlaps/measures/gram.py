"""Gram matrices of footprints, streamed: the additive terms from which every overlap is derived.

For n footprints and one parameter, ``G = X Xᵀ`` with one row of X per footprint: ``sqrt(f)`` for a Fisher, the values
themselves for masks and activities. Gram matrices add over parameters and over slices of one, so a tensor is read a
slice at a time and memory does not depend on its size.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.packed import Packed, byte_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Kind

    Words = NDArray[np.uint64]
    Bytes = NDArray[np.uint8]


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
        part = tensors.rows(name, start, stop) if isinstance(tensors, Sliceable) else tensors[name][start:stop]
        yield from torch.split(part.detach().reshape(-1), entries)


def gram_of(
    rows: Iterable[Sequence[Tensor]], count: int, prepare: Callable[[int, Tensor], None]
) -> NDArray[np.float64]:
    """Sum ``X Xᵀ`` over slices."""
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
        >>> from commonweight.footprints.footprint import Footprint
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


_NATIVE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def flat(value: Any, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """Turn an array-like into a flat CPU tensor of real numbers."""
    if isinstance(value, Footprint):
        raise UsageError(
            f"{name} is a footprint and the other argument is not: expected two arrays or two footprints; "
            f"pass one tensor of it, such as footprint[{value.names[0]!r}], or two footprints"
        )
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
        if tensor.is_complex():
            raise UsageError(_not_real(name, str(tensor.dtype)))
        return tensor.to(tensor.dtype if tensor.dtype in _NATIVE else torch.float64).reshape(-1), tuple(tensor.shape)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(_not_real(name, f"{type(value).__name__} ({error})")) from None
    if array.dtype.kind not in "biuf":
        raise UsageError(_not_real(name, f"{type(value).__name__} of dtype {array.dtype}"))
    return torch.from_numpy(np.array(array, dtype=np.float64).reshape(-1)), array.shape


def fault(values: Tensor, kind: Kind) -> str | None:
    """Say what is wrong with the entries of a footprint of some kind."""
    if not values.numel():
        return None
    if kind == "supermask":
        bad = (values != 0) & (values != 1)
        return f"a mask holds only 0 and 1, got {values[bad][0].item():g}" if bad.any() else None
    low, high = (bound.item() for bound in values.aminmax())  # both are nan if any entry is
    if math.isfinite(low) and math.isfinite(high) and (low >= 0 or kind == "activity"):
        return None
    bad = ~values.isfinite()
    if kind == "fisher":
        bad |= values < 0
    expected = "finite and at least 0" if kind == "fisher" else "finite"
    return f"entries must be {expected}, got {values[bad][0].item():g}"


def to_row_(values: Tensor, kind: Kind) -> None:
    """Turn entries into a row of the Gram matrix, in place: the square root for ``fisher``, else as they are."""
    if kind == "fisher":
        values.sqrt_()


def _not_real(name: str, got: str) -> str:
    return f"{name} must be real numbers (a torch tensor, a NumPy array or nested lists of equal length), got {got}"


BLOCK = 1008
"""Words of 64 bits whose counts are summed in 16 bits: 1008 · 64 < 2¹⁶."""


ROWS = 100
"""Blocks that are compared at a time: these, and as much scratch, stay in the second cache."""


WORD_BYTES = 8


_ONES = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)


def popcount_gram(slices: Iterable[Sequence[Bytes]], count: int) -> NDArray[np.int64]:
    """Sum ``X Xᵀ`` over slices of packed masks.

    Args:
        slices: For every slice, the bytes of each mask, uint8, all of one length; unused bits are 0.
        count: How many masks there are, n.

    Returns:
        ``[n, n]``, symmetric; ``G_ij`` is the number of weights that both masks keep.

    Example:
        >>> one, other = np.array([0b11100000], dtype=np.uint8), np.array([0b01110000], dtype=np.uint8)
        >>> popcount_gram([[one, other]], 2).tolist()
        [[3, 2], [2, 3]]
    """
    upper = np.zeros((count, count), dtype=np.int64)
    step = max(1, ROWS // count) * BLOCK * WORD_BYTES
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for rows in slices:
            tiles = ([row[start : start + step] for row in rows] for start in range(0, len(rows[0]), step))
            upper += sum(threads.map(_tile_gram, tiles))
    return upper + np.triu(upper, 1).T


def _tile_gram(rows: Sequence[Bytes]) -> NDArray[np.int64]:
    """Compute the upper half of one tile's Gram matrix."""
    n, size = len(rows), len(rows[0])
    blocks = -(-size // (BLOCK * WORD_BYTES))
    padded = np.zeros((n, blocks * BLOCK * WORD_BYTES), dtype=np.uint8)
    for index, row in enumerate(rows):
        padded[index, :size] = row
    words = padded.view(np.uint64).reshape(n, blocks, BLOCK)
    scratch = np.empty((min(n, ROWS), blocks, BLOCK), dtype=np.uint64)
    counts = np.zeros((n, n, blocks), dtype=np.uint16)
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        for i in range(stop):
            first = max(i, start)
            both = np.bitwise_and(words[first:stop], words[i], out=scratch[: stop - first])
            np.add.reduce(count_ones(both), axis=-1, dtype=np.uint16, out=counts[i, first:stop])
    gram: NDArray[np.int64] = counts.sum(axis=-1, dtype=np.int64)
    return gram


def _counted(words: Words) -> NDArray[np.uint8]:
    """Count the ones of each word, ``[..., w]``."""
    return np.bitwise_count(words)


def _looked_up(words: Words) -> NDArray[np.uint8]:
    """Count the ones of each 16 bits in a table, ``[..., 4w]``."""
    return _ONES[words.view(np.uint16)]


count_ones = _counted if np.lib.NumpyVersion(np.__version__) >= "2.0.0b1" else _looked_up
"""Counts per word or part of one, along the last axis; NumPy counts by itself from release 2 on."""
