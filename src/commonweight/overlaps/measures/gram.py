"""Gram matrices of footprints, streamed: the additive terms from which every overlap is derived.

For n footprints and one parameter, ``G = X Xᵀ`` with one row of X per footprint: ``sqrt(f)`` for a Fisher, a saliency
or a second moment, the values themselves for masks, activities and changes. Changes have a second one, of the sizes of
their entries, ``A = |X| |X|ᵀ``. Gram matrices add over parameters and over slices of one, so a tensor is read a slice
at a time and memory does not depend on its size.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.progress import track
from commonweight.base.threads import worker_threads
from commonweight.footprints.footprint import NON_NEGATIVE, SIGNED, Footprint
from commonweight.footprints.packed import Packed, byte_count
from commonweight.footprints.slices import ENTRIES_PER_SLICE, slices
from commonweight.overlaps.compatible import common_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Kind

    Words = NDArray[np.uint64]
    Bytes = NDArray[np.uint8]


BYTES_PER_SLICE = 2**18
"""Of each packed mask."""


class _Scratch(threading.local):
    """Memory of each thread for the rows of a slice: made anew for every slice, it would be in pieces before long."""

    def __init__(self) -> None:
        self._held = torch.empty(0, dtype=torch.float64)

    def rows(self, count: int, length: int) -> Tensor:
        """Give ``[count, length]``, with whatever stands there."""
        if self._held.numel() < count * length:
            self._held = torch.empty(count * length, dtype=torch.float64)
        return self._held[: count * length].view(count, length)


_scratch = _Scratch()


def gram_of(
    rows: Iterable[Sequence[Tensor]], count: int, prepare: Callable[[int, Tensor], None]
) -> NDArray[np.float64]:
    """Sum ``X Xᵀ`` over slices."""
    return np.asarray(_summed(rows, count, prepare, with_sizes=False)[0])


def _summed(
    rows: Iterable[Sequence[Tensor]], count: int, prepare: Callable[[int, Tensor], None], *, with_sizes: bool
) -> NDArray[np.float64]:
    """Sum ``X Xᵀ`` over slices, and ``|X| |X|ᵀ`` if asked: ``[1 or 2, n, n]``."""
    total = torch.zeros(1 + with_sizes, count, count, dtype=torch.float64)
    for parts in rows:
        X = _scratch.rows(count, parts[0].numel())
        for index, part in enumerate(parts):
            X[index].copy_(part)
            prepare(index, X[index])
        total[0] += X @ X.T
        if with_sizes:
            X.abs_()
            total[1] += X @ X.T
    symmetric: NDArray[np.float64] = ((total + total.mT) / 2).numpy()
    return symmetric


def parameter_gram(
    footprints: Mapping[str, Footprint], parameter: str, *, entries: int = ENTRIES_PER_SLICE
) -> NDArray[np.float64]:
    """Compute the Gram matrix ``[n, n]`` of one parameter over several footprints of one kind, of equal shapes."""
    names = tuple(footprints)
    packed = [footprint.tensors for footprint in footprints.values() if isinstance(footprint.tensors, Packed)]
    if len(packed) == len(names):
        return popcount_gram(_packed_slices(packed, parameter), len(names)).astype(np.float64)
    return np.asarray(_grams(footprints, parameter, entries, with_sizes=False)[0])


def change_grams(
    footprints: Mapping[str, Footprint], parameter: str, *, entries: int = ENTRIES_PER_SLICE
) -> NDArray[np.float64]:
    """Compute the Gram matrices of one parameter of several changes, and of their sizes: ``[2, n, n]``, in one pass."""
    return _grams(footprints, parameter, entries, with_sizes=True)


def _grams(
    footprints: Mapping[str, Footprint], parameter: str, entries: int, *, with_sizes: bool
) -> NDArray[np.float64]:
    # Activities and changes between about 1e-150 and 1e150 in size (or 0) can be squared in float64.
    names = tuple(footprints)
    kind = footprints[names[0]].kind

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

    total = _summed(zip(*map(checked, names), strict=True), len(names), prepare, with_sizes=with_sizes)
    if not np.isfinite(total).all():
        name = names[int(np.flatnonzero(~np.isfinite(np.diagonal(total[0])))[0])]
        raise MeasurementError(
            f"footprint {name!r}, parameter {parameter!r}: the sum of its entries is too large for float64; "
            "scale the footprint down"
        )
    return total


def gram_matrices(
    footprints: Mapping[str, Footprint],
    parameters: Sequence[str],
    gram: Callable[[Mapping[str, Footprint], str], NDArray[np.float64]] = parameter_gram,
) -> dict[str, NDArray[np.float64]]:
    """Compute the Gram matrix of every parameter; each thread reads one parameter at a time."""
    with worker_threads() as pool:
        found = pool.map(partial(gram, footprints), parameters)
        return dict(zip(parameters, track(found, "overlap", len(parameters), "tensor"), strict=True))


def _packed_slices(masks: Sequence[Packed], parameter: str) -> Iterator[list[NDArray[np.uint8]]]:
    size = byte_count(masks[0].shape(parameter))
    for start in range(0, size, BYTES_PER_SLICE):
        yield [each.packed(parameter, start, start + BYTES_PER_SLICE).numpy() for each in masks]


def pair_gram(kind: Kind, **two: Any) -> NDArray[np.float64]:
    """Compute the Gram matrix of two arrays of one shape, or of two footprints (summed over their parameters)."""
    # Arrays are first divided by their largest entry, since their scale cancels in every measure that is not of bits:
    # no entry is too small or too large.
    names = tuple(two)
    if all(isinstance(value, Footprint) for value in two.values()):
        for name, footprint in two.items():
            if footprint.kind not in _ALIKE[kind]:
                raise UsageError(
                    f"{name} is a footprint of kind {footprint.kind}, expected {' or '.join(_ALIKE[kind])}; "
                    "commonweight.overlap() takes the measure that fits the kind"
                )
        parameters = common_parameters(two).parameters
        return np.asarray(sum(parameter_gram(two, parameter) for parameter in parameters))
    (x, shape_x), (y, shape_y) = (flat(value, name) for name, value in two.items())
    if shape_x != shape_y:
        raise UsageError(
            f"{names[0]} and {names[1]} must have one shape, got {list(shape_x)} and {list(shape_y)}; "
            "reshape or cut them to the part they have in common"
        )
    scales = [_largest(values) if kind != "supermask" else 1.0 for values in (x, y)]

    def prepare(index: int, values: Tensor) -> None:
        complaint = fault(values, kind)
        if complaint:
            raise UsageError(f"{names[index]}: {complaint}; {_REMEDIES[kind]}")
        values /= scales[index]
        to_row_(values, kind)

    halves = (torch.split(values, ENTRIES_PER_SLICE) for values in (x, y))
    return gram_of(zip(*halves, strict=True), 2, prepare)


_ALIKE: dict[Kind, tuple[Kind, ...]] = {
    "fisher": ("fisher", "saliency", "adam_v"),
    "supermask": ("supermask",),
    "activity": ("activity", "change"),
}
"""The kinds that one measure is of, by the first of them."""

_REMEDIES: dict[Kind, str] = {
    "fisher": "pass squared gradients, averaged over examples",
    "supermask": "pass the bits of the mask, not its scores",
    "activity": "remove or replace the entries that are not",
}


def _largest(values: Tensor) -> float:
    if not values.numel():
        return 1.0
    low, high = values.aminmax()
    return max(-low.item(), high.item()) or 1.0


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
    if math.isfinite(low) and math.isfinite(high) and (low >= 0 or kind in SIGNED):
        return None
    bad = ~values.isfinite()
    if kind in NON_NEGATIVE:
        bad |= values < 0
    expected = "finite and at least 0" if kind in NON_NEGATIVE else "finite"
    return f"entries must be {expected}, got {values[bad][0].item():g}"


def to_row_(values: Tensor, kind: Kind) -> None:
    """Turn entries into a row of the Gram matrix, in place: the square root of importances, else as they are."""
    if kind in NON_NEGATIVE:
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


ROUNDING = 1e-12


def checked(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Check that matrices are square."""
    matrix = np.asarray(G, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-2] != matrix.shape[-1]:
        raise UsageError(f"expected a Gram matrix of shape [n, n], got shape {list(matrix.shape)}")
    return matrix


def cosine_ratio(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide every entry of ``[..., n, n]`` by the lengths of its two rows: ``G_ij / (sqrt(G_ii) sqrt(G_jj))``."""
    # Computed as ``G_ij / g · sqrt(g) / sqrt(s)`` with the larger g and the smaller s of the two ``G_ii``: the product
    # ``G_ii G_jj`` can leave the range of float64, and two identical rows give exactly 1.
    matrix = checked(G)
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    positive = np.where(diagonal > 0, diagonal, np.nan)
    one, other = positive[..., :, None], positive[..., None, :]
    larger, smaller = np.maximum(one, other), np.minimum(one, other)
    ratios = without_rounding(matrix / larger * (np.sqrt(larger) / np.sqrt(smaller)))
    np.einsum("...ii->...i", ratios)[...] = np.where(diagonal > 0, 1.0, np.nan)
    return ratios


def without_rounding(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take away rounding noise beyond 1: what lies within 1e-12 above 1, or below -1, becomes 1 or -1."""
    # Anything further out is left as it is: it is not rounding, and should be seen.
    noise = (np.abs(ratios) > 1) & (np.abs(ratios) <= 1 + ROUNDING)
    return np.where(noise, np.sign(ratios), ratios)
