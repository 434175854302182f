r"""What two Fishers have in common when one of them is permuted: the closed form of three permutation nulls.

With :math:`x_{rc}` and :math:`y_{rc}` the square roots of a parameter's R × C entries, the expected product is

==========  =====================================================================  ==============================
entries     :math:`(\sum_{rc} x_{rc}) (\sum_{rc} y_{rc}) / RC`                     any entry takes any place
rows        :math:`\sum_c (\sum_r x_{rc}) (\sum_r y_{rc}) / R`                     units are exchanged
columns     :math:`\sum_r (\sum_c x_{rc}) (\sum_c y_{rc}) / C`                     inputs are exchanged
==========  =====================================================================  ==============================

Permuting leaves the traces as they are: divided as the Gram matrix is, this is the expected overlap. Each is additive
over parameters, every parameter being permuted within itself. Where a parameter has a single row or column (a bias), to
exchange it would change nothing, and all three are that of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Permuted = Literal["entries", "rows", "columns"]
PERMUTED: tuple[Permuted, ...] = get_args(Permuted)


class NullSums:
    """Row and column sums of one parameter.

    Args:
        versions: How many versions of each footprint there are (all folds, and without each).
        n: How many footprints.
        shape: Rows and columns of the parameter.
    """

    def __init__(self, versions: int, n: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.over_rows = torch.zeros(versions, n, shape[1], dtype=torch.float64)
        self.over_columns = torch.zeros(versions, n, shape[0], dtype=torch.float64)

    def add(self, X: Tensor, row: int, column: int) -> None:
        """Add a piece of the parameter.

        Args:
            X: Square roots ``[versions, n, rows, columns]``.
            row: Where the piece begins.
            column: Where it begins.
        """
        self.over_rows[:, :, column : column + X.shape[3]] += X.sum(2)
        self.over_columns[:, :, row : row + X.shape[2]] += X.sum(3)

    def expected(self) -> NDArray[np.float64]:
        """Compute the expected Gram matrices.

        Returns:
            ``[3, versions, n, n]``, in the order of :data:`PERMUTED`.
        """
        rows, columns = self.shape
        sums = self.over_columns.sum(2, keepdim=True)
        entries = sums @ sums.mT / max(1, rows * columns)
        if min(rows, columns) <= 1:
            return np.asarray(torch.stack([entries] * 3).numpy())
        by_rows = self.over_rows @ self.over_rows.mT / rows
        by_columns = self.over_columns @ self.over_columns.mT / columns
        return np.asarray(torch.stack([entries, by_rows, by_columns]).numpy())
