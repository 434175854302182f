r"""The sums behind noise ceilings, corrected overlaps, nulls and intervals: Gram matrices of sub-samples of the folds.

A Fisher footprint of n examples holds folds of :math:`n_k` examples with means :math:`f_k`. For a set A of folds,
:math:`F_A = \sum_{k \in A} n_k f_k / n`, and a row of X is :math:`\sqrt{F_A}`. All matrices below are ``[n, n]`` over
the footprints, and add over parameters and slices as the Gram matrix of all folds does:

=========  ================================================================================================
full       :math:`\langle \sqrt{F_i}, \sqrt{F_j} \rangle` without one fold
half       :math:`\tfrac12 \sum_h \langle \sqrt{F_{i,H}}, \sqrt{F_{j,H'}} \rangle + (H \leftrightarrow H')`
null       the half matrix as expected when entries, rows or columns of one side are permuted
=========  ================================================================================================

each for all folds and without each fold in turn. Halves and nulls multiply different examples only, on the diagonal
too. With :math:`x_{rc}` and :math:`y_{rc}` the square roots of a parameter's R × C entries, the expected product is

=======  =====================================================================  =======================
entries  :math:`(\sum_{rc} x_{rc}) (\sum_{rc} y_{rc}) / RC`                     any entry takes any place
rows     :math:`\sum_c (\sum_r x_{rc}) (\sum_r y_{rc}) / R`                     units are exchanged
columns  :math:`\sum_r (\sum_c x_{rc}) (\sum_c y_{rc}) / C`                     inputs are exchanged
=======  =====================================================================  =======================

Of the same rows, the noise that two models have in common would sit in the same entries of both, and count as above
the null. Where a parameter has a single row or column (a bias), to exchange it would change nothing, and all three are
that of entries.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache, reduce
from itertools import islice
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import MeasurementError
from commonweight.base.progress import steps
from commonweight.base.threads import worker_threads
from commonweight.footprints.slices import matrix_shape, shape_of, slabs
from commonweight.overlaps.measures.gram import fault
from commonweight.overlaps.resampling.ratios import FoldTerms
from commonweight.overlaps.resampling.splits import Splits, splits_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.slices import Slab

    Array = NDArray[np.float64]

DOUBLE_UP_TO = 2**16
"""Entries of a parameter up to which its roots and products are float64; of larger ones they are float32, and summed in
float64 over pieces."""

PIECE = 2**15
"""Entries of one fold, of all footprints together, that are worked on at a time: what is made of them stays in cache.
"""

WIDTH = 2**9
"""Columns of a piece."""

RUN = 2**6
"""Products that are summed in float32 before they go to float64: of equal ones more would be off by above 1e-6."""

READ = 2**20
"""Entries of all folds and footprints that a thread reads at a time."""

TOGETHER = 2**10
"""Small parameters of one shape that are summed together, times the pairs of footprints."""

LEAST_SCALE = 2.0**-120
"""Entries are divided by their trace or, where that is less, by this: the quotient must be a float32."""


def fold_terms(footprints: Mapping[str, Footprint], grams: Mapping[str, Array]) -> dict[str, FoldTerms]:
    """Compute the sums of every parameter of which there is a Gram matrix, reading each fold once."""
    # A thread takes some rows of a large parameter, or some small parameters of one shape. Memory does not depend on
    # the size of the model.
    first, threads = next(iter(footprints.values())), torch.get_num_threads()
    folds = [fold.tensors for each in footprints.values() for fold in each.folds]
    shapes = {name: matrix_shape(shape_of(first.tensors, name)) for name in grams}
    groups = _together(shapes, len(folds), len(footprints))
    small, large = ([names for names in groups if _is_large(shapes[names[0]]) is kind] for kind in (False, True))

    def sums_of(names: tuple[str, ...], part: int = 0, parts: int = 1) -> _Sums:
        shape = shapes[names[0]]
        dtype = torch.float32 if _is_large(shape) else torch.float64
        sums = _Sums(len(first.folds), shape, dtype, np.stack([np.diagonal(grams[name]) for name in names]))
        for together in zip(*(slabs(folds, name, READ, (part, parts)) for name in names), strict=True):
            stacked = _stacked(footprints, names, together, sums)
            sums.add(stacked, together[0].column)
            advance(stacked[:, 0, 0].numel())
        return sums

    def terms_of(names: tuple[str, ...]) -> list[FoldTerms]:
        return sums_of(names).terms()

    def share_of(task: tuple[tuple[str, ...], int]) -> _Sums:
        return sums_of(*task, threads)

    weights = sum(rows * columns for rows, columns in shapes.values())
    terms: dict[str, FoldTerms] = {}
    with worker_threads() as pool, steps("overlap with folds", weights, "weight") as advance:
        for names, found in zip(small, pool.map(terms_of, small), strict=True):
            terms |= zip(names, found, strict=True)
        shares = pool.map(share_of, ((names, part) for names in large for part in range(threads)))
        for (name,) in large:
            (terms[name],) = reduce(_Sums.plus, islice(shares, threads)).terms()
    return {name: terms[name] for name in grams}


def _is_large(shape: tuple[int, int]) -> bool:
    return prod(shape) > DOUBLE_UP_TO


def _together(shapes: Mapping[str, tuple[int, int]], matrices: int, n: int) -> list[tuple[str, ...]]:
    """Gather small parameters of one shape, as many as are read at a time; every other parameter is alone."""
    alike: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault(shape, []).append(name)
    found = []
    for shape, names in alike.items():
        most = max(1, min(READ // max(1, matrices * prod(shape)), TOGETHER // n**2))
        found += [tuple(names[start : start + most]) for start in range(0, len(names), most)]
    return found


def _stacked(footprints: Mapping[str, Footprint], names: Sequence[str], slabs: Sequence[Slab], sums: _Sums) -> Tensor:
    """Stack slabs of all folds, ``[B, K, n, rows, columns]``, each weighted by its count and divided by its scale."""
    S = torch.stack([part.cpu() for slab in slabs for part in slab.parts]).unflatten(0, (len(names), -1))
    if fault(S, "fisher"):
        folds = [(name, fold) for name, footprint in footprints.items() for fold in range(len(footprint.folds))]
        for parameter, slab in zip(names, slabs, strict=True):
            for (name, fold), part in zip(folds, slab.parts, strict=True):
                complaint = fault(part, "fisher")
                if complaint:
                    raise MeasurementError(
                        f"footprint {name!r}, fold {fold}, parameter {parameter!r}: {complaint}; measure it again"
                    )
    counts = torch.tensor([[fold.count for fold in each.folds] for each in footprints.values()], dtype=torch.float64)
    factors = (counts / counts.sum(1, keepdim=True) / sums.scales[..., None]).flatten(1)[:, :, None, None]
    S = S.mul_(factors).to(sums.dtype) if S.dtype == torch.float64 else S.to(sums.dtype).mul_(factors)
    folded: Tensor = S.unflatten(1, counts.shape)
    return folded.transpose(1, 2)


def array_folds(S: Tensor) -> FoldTerms:
    """Compute the sums of one parameter that is at hand as an array.

    Args:
        S: ``[K, n, rows, columns]``, float64, at least 0: per fold and footprint the sum over its examples, divided by
            the number of examples in all folds (a common factor of a footprint cancels in every ratio).

    Returns:
        The sums.

    Example:
        >>> terms = array_folds(torch.ones(8, 2, 1, 3, dtype=torch.float64))
        >>> (terms.half[0] / terms.half[0].max()).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    K, n, rows, columns = S.shape
    sums = _Sums(K, (rows, columns), S.dtype, np.ones((1, n)))
    sums.add(S[None], 0)
    return sums.terms()[0]


@dataclass(frozen=True)
class _Design:
    """Which folds are summed before a root is taken, and which roots are multiplied."""

    without: Tensor
    """``[K, K]``: all folds but one."""

    slots: Tensor
    """``[splits, slots, K]``: a half, the other, the first half without each of its folds, the other half so."""

    left: list[int]
    """Slots that are multiplied ..."""

    right: list[int]
    """... by slots: always by one of the two halves."""

    versions: Tensor
    """``[K + 1, products * splits]``: 1 where a product is of all folds (0) or without fold k (k + 1), else 0."""


class _Scratch(threading.local):
    """Memory for roots, of each thread, by type."""

    def __init__(self) -> None:
        self.held: dict[torch.dtype, Tensor] = {}


_scratch = _Scratch()


@cache
def _design(splits: Splits, dtype: torch.dtype) -> _Design:
    K = splits.folds
    slots, versions = [], []
    left, right = [0], [1]
    for halves in splits.halves:
        # Of a half of one fold nothing is left without it.
        reduced = [(half, fold) for half, part in enumerate(halves) for fold in part if len(part) > 1]
        slots.append([*halves, *(tuple(f for f in halves[half] if f != fold) for half, fold in reduced)])
        versions.append([0, *(fold + 1 for _, fold in reduced)])
        left, right = [0, *range(2, len(slots[-1]))], [1, *(1 - half for half, _ in reduced)]
    chosen = torch.zeros(len(slots), len(left) + 1, K, dtype=dtype)
    for split, parts in enumerate(slots):
        for slot, part in enumerate(parts):
            chosen[split, slot, list(part)] = 1
    versions_of = torch.nn.functional.one_hot(torch.tensor(versions, dtype=torch.long), K + 1).double()
    return _Design(1 - torch.eye(K, dtype=dtype), chosen, left, right, versions_of.permute(2, 1, 0).flatten(1))


class _Sums:
    """Sums over some entries of B parameters of one shape, in float64; every array begins with B."""

    def __init__(self, K: int, shape: tuple[int, int], dtype: torch.dtype, traces: Array) -> None:
        self.shape, self.dtype, (B, n) = shape, dtype, traces.shape
        self.n = n
        self.design = _design(splits_of(K), dtype)
        # Powers of 4, whose roots and quotients are exact: entries are brought to at most about 1.
        known = torch.from_numpy(traces).clamp(LEAST_SCALE)
        self.scales = 4.0 ** torch.log2(torch.where(known > LEAST_SCALE, known, 1.0)).div(2).ceil()
        splits, slots = self.design.slots.shape[:2]
        self.is_matrix = min(shape) > 1
        self.traces, self.full = self._zeros(B, K, n), self._zeros(B, K, n, n)
        self.half, self.by_columns = (self._zeros(B, splits, slots * n, 2 * n) for _ in range(2))
        self.over_rows = self._zeros(B, splits, slots, n, shape[1] if self.is_matrix else 1)
        self.over_columns = self._zeros(0)

    @staticmethod
    def _zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64)

    def plus(self, other: _Sums) -> _Sums:
        """Add the sums over other rows of the parameters."""
        for name in ("traces", "full", "half", "by_columns", "over_rows"):
            getattr(self, name).add_(getattr(other, name))
        return self

    def add(self, S: Tensor, column: int) -> None:
        """Add slabs ``[B, K, n, rows, columns]`` that begin at a column: whole rows, or parts of one from the left."""
        over_columns = S.sum(4)
        self.traces += over_columns.sum(3)
        if S.shape[4] == self.shape[1]:
            used = over_columns.sum((0, 1, 2)) > 0
            S = S if used.all() else S[..., used, :]  # rows of an embedding that no example read add 0 to every sum
        rows, columns = S.shape[3:]
        wide = min(columns, WIDTH)
        high = max(1, PIECE // (self.n * wide))
        many = max(1, PIECE // max(1, self.n * rows * columns))
        for start in range(0, len(S), many):
            at = slice(start, start + many)
            for top in range(0, rows, high):
                for left in range(0, columns, wide):
                    piece = S[at, :, :, top : top + high, left : left + wide]
                    self._add(piece.contiguous(), at, column + left)

    def _add(self, piece: Tensor, at: slice, column: int) -> None:
        B, K, n, rows, columns = piece.shape
        folds = piece.view(B, K, -1)
        roots = self._roots_of(self.design.without, folds).view(B, K, n, -1)
        self.full[at] += _multiplied(roots, roots)
        splits, slots = self.design.slots.shape[:2]
        if column == 0:
            self.over_columns = self._zeros(B, splits, slots, n, rows)
        some = max(1, PIECE // (B * n * rows * columns))
        for these in (slice(split, split + some) for split in range(0, splits, some)):
            roots = self._roots_of(self.design.slots[these].flatten(0, 1), folds).view(B, -1, slots * n, rows * columns)
            self.half[at, these] += self._by_halves(roots)
            roots = roots.view(B, -1, slots, n, rows, columns)
            if self.is_matrix:
                self.over_columns[:, these] += roots.sum(5)
                self.over_rows[at, these, :, :, column : column + columns] += roots.sum(4)
            else:
                self.over_rows[at, these] += roots.sum((4, 5))[..., None]
        if self.is_matrix and column + columns == self.shape[1]:
            self.by_columns[at] += self._by_halves(self.over_columns.flatten(2, 3))

    def _roots_of(self, chosen: Tensor, folds: Tensor) -> Tensor:
        """Sum chosen folds ``[sums, K]`` of ``[B, K, m]`` and take roots, in memory that is used again and again."""
        shape = (len(folds), len(chosen), folds.shape[2])
        held = _scratch.held.get(self.dtype)
        if held is None or held.numel() < prod(shape):
            held = _scratch.held[self.dtype] = torch.empty(prod(shape), dtype=self.dtype)
        return torch.matmul(chosen.expand(len(folds), -1, -1), folds, out=held[: prod(shape)].view(shape)).sqrt_()

    def _by_halves(self, roots: Tensor) -> Tensor:
        """Multiply all slots of a split by its two halves: ``[..., slots * n, 2 n]``."""
        return _multiplied(roots, roots[..., : 2 * self.n, :])

    def terms(self) -> list[FoldTerms]:
        """Give the sums of each parameter, in the footprints' own scale."""
        R, C = self.shape
        entries = self._by_halves(self.over_rows.sum(4, keepdim=True).flatten(2, 3)) / max(1, R * C)
        null = [entries, entries, entries]
        if self.is_matrix:
            null[1:] = self._by_halves(self.over_rows.flatten(2, 3)) / R, self.by_columns / C
        pairs = torch.sqrt(self.scales[:, :, None] * self.scales[:, None])[:, None]
        half, *null = _symmetric(self._of_halves(torch.stack([self.half, *null])) * pairs).numpy()
        full = _symmetric(self.full * pairs).numpy()
        traces = (self.traces * self.scales[:, None]).numpy()
        every = zip(full, half, np.stack(null, 1), traces, strict=True)
        return [FoldTerms(*map(np.ascontiguousarray, each)) for each in every]

    def _of_halves(self, products: Tensor) -> Tensor:
        """Sum products of different halves over the splits: ``[..., K + 1, n, n]``."""
        every = products.unflatten(-1, (2, -1)).unflatten(-3, (-1, self.n))  # [..., splits, slots, n, 2, n]
        every = every[..., self.design.left, :, self.design.right, :]  # [products, ..., splits, n, n]
        every = every.movedim(0, -4).flatten(-4, -3).flatten(-2)
        summed: Tensor = self.design.versions @ every
        return summed.view(*summed.shape[:-1], self.n, self.n)


def _multiplied(x: Tensor, y: Tensor) -> Tensor:
    """Multiply ``[..., a, m]`` and ``[..., b, m]`` to ``[..., a, b]``, in float64 but for runs of products."""
    if x.dtype == torch.float64:
        return x @ y.mT
    whole = x.shape[-1] // RUN * RUN
    rest = (x[..., whole:] @ y[..., whole:].mT).double()
    x, y = (each[..., :whole].unflatten(-1, (-1, RUN)).movedim(-2, 0) for each in (x, y))
    return rest + (x @ y.mT).sum(0, dtype=torch.float64)


def _symmetric(products: Tensor) -> Tensor:
    return (products + products.mT) / 2
