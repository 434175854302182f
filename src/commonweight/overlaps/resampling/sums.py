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

from functools import reduce
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
from commonweight.overlaps.resampling.splits import design_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.slices import Slab
    from commonweight.overlaps.resampling.splits import Part

    Array = NDArray[np.float64]

DOUBLE_UP_TO = 2**16
"""Entries of a parameter up to which torch makes its sums, in float64; of larger ones the compiled kernel does, whose
roots and products are float32."""

READ = {torch.float64: 2**18, torch.float32: 2**22}
"""Entries of all folds and footprints that a thread reads at a time."""

TOGETHER = 2**10
"""Small parameters of one shape that are summed together, times the pairs of footprints."""

LEAST_SCALE = 2.0**-120
"""Entries are divided by their trace or, where that is less, by this: the quotient must be a float32."""


def fold_terms(
    footprints: Mapping[str, Footprint], grams: Mapping[str, Array], known: Mapping[str, FoldTerms] | None = None
) -> dict[str, FoldTerms]:
    """Compute the sums of every parameter of which there is a Gram matrix, reading each fold once."""
    # A thread takes some rows of a large parameter, or some small parameters of one shape. Memory does not depend on
    # the size of the model. What is known are sums of the first footprints: large parameters take them as they are.
    first, threads = next(iter(footprints.values())), torch.get_num_threads()
    folds = [fold.tensors for each in footprints.values() for fold in each.folds]
    shapes = {name: matrix_shape(shape_of(first.tensors, name)) for name in grams}
    large = [name for name, shape in shapes.items() if prod(shape) > DOUBLE_UP_TO]
    small = _together({name: shapes[name] for name in shapes if name not in large}, len(folds), len(footprints))

    def sums_of(names: tuple[str, ...], part: int = 0, parts: int = 1) -> _Sums:
        shape = shapes[names[0]]
        dtype = torch.float32 if prod(shape) > DOUBLE_UP_TO else torch.float64
        traces = np.stack([np.diagonal(grams[name]) for name in names])
        sums = _Sums(len(first.folds), shape, dtype, traces, (known or {}).get(names[0]))
        for together in zip(*(slabs(folds, name, READ[dtype], (part, parts)) for name in names), strict=True):
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
        shares = pool.map(share_of, (((name,), part) for name in large for part in range(threads)))
        for name in large:
            (terms[name],) = reduce(_Sums.plus, islice(shares, threads)).terms()
    return {name: terms[name] for name in grams}


def _together(shapes: Mapping[str, tuple[int, int]], matrices: int, n: int) -> list[tuple[str, ...]]:
    """Gather parameters of one shape, as many as are read at a time."""
    alike: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault(shape, []).append(name)
    found = []
    for shape, names in alike.items():
        most = max(1, min(READ[torch.float64] // max(1, matrices * prod(shape)), TOGETHER // n**2))
        found += [tuple(names[start : start + most]) for start in range(0, len(names), most)]
    return found


def _stacked(footprints: Mapping[str, Footprint], names: Sequence[str], slabs: Sequence[Slab], sums: _Sums) -> Tensor:
    """Stack slabs of all folds, ``[B, n, K, rows, columns]``, each weighted by its count and divided by its scale."""
    counts = torch.tensor([[fold.count for fold in each.folds] for each in footprints.values()], dtype=torch.float64)
    factors = (counts / counts.sum(1, keepdim=True) / sums.scales[..., None]).flatten().tolist()
    parts = [part for slab in slabs for part in slab.parts]
    S = torch.empty(len(parts), *parts[0].shape, dtype=sums.dtype)
    for part, factor, place in zip(parts, factors, S, strict=True):
        torch.mul(part.to("cpu", torch.promote_types(part.dtype, sums.dtype)), factor, out=place)
    if fault(S, "fisher"):
        folds = [(name, fold) for name, footprint in footprints.items() for fold in range(len(footprint.folds))]
        for parameter, slab in zip(names, slabs, strict=True):
            for (name, fold), part in zip(folds, slab.parts, strict=True):
                complaint = fault(part, "fisher")
                if complaint:
                    raise MeasurementError(
                        f"footprint {name!r}, fold {fold}, parameter {parameter!r}: {complaint}; measure it again"
                    )
    return S.view(len(names), *counts.shape, *parts[0].shape)


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
    sums.add(S.transpose(0, 1).contiguous()[None], 0)
    return sums.terms()[0]


class _Sums:
    """Sums over some entries of B parameters of one shape, in float64; every array begins with B."""

    def __init__(
        self, K: int, shape: tuple[int, int], dtype: torch.dtype, traces: Array, known: FoldTerms | None = None
    ) -> None:
        self.known = known if dtype == torch.float32 else None
        self.is_matrix = min(shape) > 1
        self.shape = shape if self.is_matrix else (1, prod(shape))
        self.dtype, (B, n) = dtype, traces.shape
        self.n = n
        self.design = design_of(K)
        # Powers of 4, whose roots and quotients are exact: entries are brought to at most about 1.
        scales = torch.from_numpy(traces).clamp(LEAST_SCALE)
        self.scales = 4.0 ** torch.log2(torch.where(scales > LEAST_SCALE, scales, 1.0)).div(2).ceil()
        splits, slots, products = len(self.design.slots), len(self.design.slots[0]), len(self.design.left)
        self.traces, self.full = self._zeros(B, K, n), self._zeros(B, K, n, n)
        self.half, self.by_columns = (self._zeros(B, splits, products, n, n) for _ in range(2))
        self.over_rows = self._zeros(B, splits, slots, n, self.shape[1] if self.is_matrix else 1)
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
        """Add slabs ``[B, n, K, rows, columns]`` that begin at a column: whole rows, or parts of one from the left."""
        S = S if self.is_matrix else S.flatten(3).unsqueeze(3)
        if column == 0 or not self.is_matrix:
            self.over_columns = self._zeros(*self.over_rows.shape[:4], S.shape[3])
        if self.dtype == torch.float64:
            self._add_in_torch(S, column)
        else:
            from commonweight.overlaps.resampling.kernel import add_sums  # compiles it, or reads what was compiled

            over_rows = self.over_rows if self.is_matrix else self.over_rows[..., :0]
            for each in zip(S, self.traces, self.full, self.half, over_rows, self.over_columns, strict=True):
                add_sums(self.design, 0 if self.known is None else len(self.known.traces[0]), column, *each)
        if not self.is_matrix:
            self.over_rows += self.over_columns
        elif column + S.shape[4] == self.shape[1]:
            self.by_columns += self._by_halves(self.over_columns)

    def _add_in_torch(self, S: Tensor, column: int) -> None:
        S = S.transpose(1, 2).contiguous()
        self.traces += S.sum((3, 4))
        roots = self._roots(self.design.without, S).flatten(3)
        self.full += roots @ roots.mT
        for split, parts in enumerate(self.design.slots):
            roots = self._roots(parts, S)
            self.half[:, split] += self._by_halves(roots.flatten(3))
            self.over_columns[:, split] += roots.sum(4)
            if self.is_matrix:
                self.over_rows[:, split, ..., column : column + S.shape[4]] += roots.sum(3)

    @staticmethod
    def _roots(parts: Sequence[Part], S: Tensor) -> Tensor:
        """Take the roots of sums of folds ``[B, K, n, rows, columns]``: ``[B, sums, n, rows, columns]``."""
        chosen = torch.tensor([[fold in part for fold in range(S.shape[1])] for part in parts], dtype=S.dtype)
        roots: Tensor = (chosen @ S.flatten(2)).sqrt_().unflatten(2, S.shape[2:])
        return roots

    def _by_halves(self, roots: Tensor) -> Tensor:
        """Multiply slots ``[..., slots, n, m]`` by halves: ``[..., products, n, n]``."""
        every: Tensor = roots.flatten(-3, -2) @ roots[..., :2, :, :].flatten(-3, -2).mT
        every = every.unflatten(-1, (2, -1)).unflatten(-3, (-1, self.n))  # [..., slots, n, 2, n]
        return every[..., self.design.left, :, self.design.right, :].movedim(0, -3)

    def terms(self) -> list[FoldTerms]:
        """Give the sums of each parameter, in the footprints' own scale."""
        R, C = self.shape
        entries = self._by_halves(self.over_rows.sum(4, keepdim=True)) / max(1, R * C)
        null = [entries, entries, entries]
        if self.is_matrix:
            null[1:] = self._by_halves(self.over_rows) / R, self.by_columns / C
        pairs = torch.sqrt(self.scales[:, :, None] * self.scales[:, None])[:, None]
        of_halves = torch.stack([self.half, *null]).flatten(2, 3)  # [4, B, splits * products, n, n]
        of_halves = torch.einsum("vp,tbpij->tbvij", torch.from_numpy(self.design.versions), of_halves)
        half, *null = _symmetric(of_halves * pairs).numpy()
        full = _symmetric(self.full * pairs).numpy()
        traces = (self.traces * self.scales[:, None]).numpy()
        nulls = np.stack(null, 1)
        if self.known is not None:
            m = len(self.known.traces[0])
            full[..., :m, :m], half[..., :m, :m], nulls[..., :m, :m] = self.known.full, self.known.half, self.known.null
        every = zip(full, half, nulls, traces, strict=True)
        return [FoldTerms(*map(np.ascontiguousarray, each)) for each in every]


def _symmetric(products: Tensor) -> Tensor:
    return (products + products.mT) / 2
