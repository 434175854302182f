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
too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from commonweight.base.errors import MeasurementError
from commonweight.footprints.slices import slabs
from commonweight.overlaps.measures.gram import fault
from commonweight.overlaps.resampling.null import NullSums
from commonweight.overlaps.resampling.splits import Splits, splits_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Footprint
    from commonweight.overlaps.resampling.splits import Part

    Array = NDArray[np.float64]


ENTRIES_IN_CACHE = 2**16
"""Entries of one row of X times footprints that are worked on at a time."""


@dataclass(frozen=True, eq=False)
class FoldTerms:
    """The additive sums of one parameter, or of several together, over K folds and n footprints.

    Where a first dimension has K + 1 entries, entry 0 is of all folds and entry k of all but fold k - 1.
    """

    full: Array
    """``[K, n, n]``: without each fold; of all folds it is the table's own Gram matrix."""

    half: Array
    """``[K + 1, n, n]``, summed over the splits."""

    null: Array
    """``[3, K + 1, n, n]``: entries, rows, columns of the halves permuted."""

    traces: Array
    """``[K, n]``: the trace of each fold's part of the Fisher."""

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.flags.writeable = False

    @property
    def arrays(self) -> dict[str, Array]:
        """All of them by name."""
        return {"full": self.full, "half": self.half, "null": self.null, "traces": self.traces}

    @classmethod
    def summed(cls, terms: Iterable[FoldTerms]) -> FoldTerms:
        """Add the sums of several parameters."""
        each = [one.arrays for one in terms]
        return cls(**{name: np.asarray(sum(one[name] for one in each)) for name in each[0]})

    def of(self, chosen: Sequence[int]) -> FoldTerms:
        """Take the sums of some footprints."""
        pairs = {name: array[..., chosen, :][..., chosen] for name, array in self.arrays.items() if name != "traces"}
        return FoldTerms(**pairs, traces=self.traces[:, chosen])


@dataclass(frozen=True, eq=False)
class Resampled:
    """The sums over folds that belong to a table."""

    folds: int
    """K."""

    terms: Mapping[str, FoldTerms]
    """Per parameter."""

    def of(self, chosen: Sequence[int]) -> Resampled:
        """Take the sums of some footprints."""
        return Resampled(self.folds, {name: terms.of(chosen) for name, terms in self.terms.items()})


def parameter_folds(footprints: Mapping[str, Footprint], parameter: str) -> FoldTerms:
    """Compute the sums of one parameter, reading every fold once, a slab at a time."""
    # Memory does not depend on the size of the model: slabs of bounded size, and sums over rows and columns.
    names, count = tuple(footprints), len(next(iter(footprints.values())).folds)
    stack: _Stack | None = None
    for slab in slabs([fold.tensors for each in footprints.values() for fold in each.folds], parameter):
        S = torch.empty(count, len(names), *slab.parts[0].shape, dtype=torch.float64)
        for index, part in enumerate(slab.parts):
            name, fold = names[index // count], index % count
            held = footprints[name]
            place = S[fold, index // count]
            place.copy_(part)
            complaint = fault(place, "fisher")
            if complaint:
                raise MeasurementError(
                    f"footprint {name!r}, fold {fold}, parameter {parameter!r}: {complaint}; measure it again"
                )
            place.mul_(held.folds[fold].count / sum(each.count for each in held.folds))
        stack = stack or _Stack(splits_of(count), len(names), slab.shape)
        stack.add(S, slab.column)
    return (stack or _Stack(splits_of(count), len(names), (0, 0))).terms()


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
    stack = _Stack(splits_of(S.shape[0]), S.shape[1], (S.shape[2], S.shape[3]))
    stack.add(S, 0)
    return stack.terms()


class _Stack:
    """Takes pieces of one parameter, and holds the sums."""

    def __init__(self, splits: Splits, n: int, shape: tuple[int, int]) -> None:
        K = splits.folds
        self.splits, self.n = splits, n
        self.full, self.half = (torch.zeros(K + 1, n, n, dtype=torch.float64) for _ in range(2))
        self.traces = torch.zeros(K, n, dtype=torch.float64)
        self.null = NullSums(splits.halves, K, n, shape)

    def add(self, S: Tensor, column: int) -> None:
        """Add a piece ``[K, n, rows, columns]`` beginning at a column: from left to right, then from top to bottom."""
        rows, columns = S.shape[2:]
        wide = max(1, ENTRIES_IN_CACHE // self.n)
        high = max(1, wide // max(1, columns))
        for top in range(0, rows, high):
            for left in range(0, columns, wide):
                piece = S[:, :, top : top + high, left : left + wide]
                self._add(piece.contiguous(), column + left)

    def _add(self, piece: Tensor, column: int) -> None:
        K, n, rows, columns = piece.shape
        sums = list(piece.view(K, n, rows * columns))
        self.traces += piece.sum(dim=(2, 3))
        whole, without = _leave_one_out(sums)
        X = torch.stack([whole, *without]).sqrt_()
        self.full += X @ X.mT
        singles = list(piece.sqrt().view(K, n, rows * columns))
        for split, parts in enumerate(self.splits.halves):
            multiplied = self._cross(parts, sums, singles)
            self.null.add(split, [each.view(n, rows, columns) for each in multiplied], column)

    def _cross(self, halves: tuple[Part, ...], sums: list[Tensor], singles: list[Tensor]) -> list[Tensor]:
        """Add the products of two halves, halved: of all folds, and with each fold taken out of its half."""
        left_out = [_leave_one_out([sums[fold] for fold in part]) for part in halves]
        roots = [singles[part[0]] if len(part) == 1 else left_out[a][0].sqrt_() for a, part in enumerate(halves)]
        multiplied = list(roots)
        self.half[0] += _symmetric(roots[0] @ roots[1].T) / 2
        for a, part in enumerate(halves):
            if len(part) == 1:
                continue  # nothing is left of it
            remaining = (
                [singles[fold] for fold in reversed(part)]
                if len(part) == 2
                else [each.sqrt_() for each in left_out[a][1]]
            )
            for fold, root in zip(part, remaining, strict=True):
                self.half[fold + 1] += _symmetric(root @ roots[1 - a].T) / 2
            multiplied += remaining
        return multiplied

    def terms(self) -> FoldTerms:
        """Give the sums."""
        full = _symmetric(self.full[1:]) / 2
        return FoldTerms(full.numpy(), self.half.numpy(), self.null.expected(), self.traces.numpy())


def _symmetric(products: Tensor) -> Tensor:
    return products + products.mT


def _leave_one_out(terms: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Sum some terms, and all but each of them: no subtraction, so zeros stay zeros; sums of several are new."""
    if len(terms) == 1:
        return terms[0], [torch.zeros_like(terms[0])]
    middle = len(terms) // 2
    (left, without_left), (right, without_right) = _leave_one_out(terms[:middle]), _leave_one_out(terms[middle:])
    without = [each + right for each in without_left] if middle > 1 else [right]
    without += [left + each for each in without_right] if len(terms) - middle > 1 else [left]
    return left + right, without
