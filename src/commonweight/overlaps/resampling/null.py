r"""What two Fishers have in common when one of them is permuted: the closed form of three permutation nulls.

With :math:`x_{rc}` and :math:`y_{rc}` the square roots of a parameter's R × C entries, the expected product is

==========  =====================================================================  ==============================
entries     :math:`(\sum_{rc} x_{rc}) (\sum_{rc} y_{rc}) / RC`                     any entry takes any place
rows        :math:`\sum_c (\sum_r x_{rc}) (\sum_r y_{rc}) / R`                     units are exchanged
columns     :math:`\sum_r (\sum_c x_{rc}) (\sum_c y_{rc}) / C`                     inputs are exchanged
==========  =====================================================================  ==============================

x and y are of different halves of the examples, as in the corrected overlap that the null stands beside: of the same
rows, the noise that two models have in common would sit in the same entries of both, and count as above the null.
Permuting leaves the traces as they are: divided as the products of halves are, this is the expected overlap. Each is
additive over parameters, every parameter being permuted within itself. Where a parameter has a single row or column (a
bias), to exchange it would change nothing, and all three are that of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.overlaps.resampling.splits import Part

Permuted = Literal["entries", "rows", "columns"]
PERMUTED: tuple[Permuted, ...] = get_args(Permuted)


class _Products(NamedTuple):
    """Which roots of one split are multiplied, and which versions their products belong to."""

    begin: int
    end: int
    left: list[int]
    right: list[int]
    versions: list[int]


class NullSums:
    """Sums over the rows and columns of one parameter, of all that halves of the folds are multiplied by.

    Args:
        halves: Per split two complementary halves.
        folds: K.
        n: How many footprints.
        shape: Rows and columns of the parameter.
    """

    def __init__(self, halves: Sequence[tuple[Part, ...]], folds: int, n: int, shape: tuple[int, int]) -> None:
        self.folds, self.n, self.shape = folds, n, shape
        self._splits: list[_Products] = []
        for parts in halves:
            begin = self._splits[-1].end if self._splits else 0
            left, right, versions = [0], [1], [0]
            for half, part in enumerate(parts):
                for fold in part if len(part) > 1 else ():
                    left.append(len(versions) + 1)
                    right.append(1 - half)
                    versions.append(fold + 1)
            self._splits.append(_Products(begin, begin + len(versions) + 1, left, right, versions))
        roots = self._splits[-1].end if self._splits else 0
        self._single = min(shape) <= 1
        self._totals = self._zeros(roots, 1)
        self._over_rows = self._zeros(roots, 0 if self._single else shape[1])
        self._by_columns = torch.zeros(folds + 1, n, n, dtype=torch.float64)
        self._over_columns = self._zeros(roots, 0)

    def add(self, split: int, roots: Sequence[Tensor], column: int) -> None:
        """Add a piece of the parameter; all pieces of some rows, from left to right, come before those of other rows.

        Args:
            split: Which split.
            roots: Square roots ``[n, rows, columns]`` of the first half, of the second, of the first half without each
                of its folds, of the second so; a half of one fold has none without it.
            column: Where the piece begins.
        """
        rows, columns = roots[0].shape[1:]
        if split == 0 and column == 0:
            self._over_columns = self._zeros(len(self._totals), rows)
        for slot, root in enumerate(roots, self._splits[split].begin):
            over_columns = root.sum(2)
            self._totals[slot, :, 0] += over_columns.sum(1)
            if not self._single:
                self._over_columns[slot] += over_columns
                self._over_rows[slot, :, column : column + columns] += root.sum(1)
        if not self._single and split == len(self._splits) - 1 and column + columns == self.shape[1]:
            self._by_columns += self._products(self._over_columns)

    def expected(self) -> NDArray[np.float64]:
        """Compute the expected products of different halves, halved and summed over the splits."""
        rows, columns = self.shape
        entries = self._products(self._totals) / max(1, rows * columns)
        if self._single:
            return np.asarray(torch.stack([entries] * 3).numpy())
        by_rows = self._products(self._over_rows) / rows
        return np.asarray(torch.stack([entries, by_rows, self._by_columns / columns]).numpy())

    def _zeros(self, roots: int, width: int) -> Tensor:
        return torch.zeros(roots, self.n, width, dtype=torch.float64)

    def _products(self, sums: Tensor) -> Tensor:
        """Multiply sums ``[roots, n, width]`` as the roots are multiplied: ``[K + 1, n, n]``."""
        found = torch.zeros(self.folds + 1, self.n, self.n, dtype=torch.float64)
        for begin, end, left, right, versions in self._splits:
            split = sums[begin:end]
            found[versions] += split[left] @ split[right].mT
        return (found + found.mT) / 2
