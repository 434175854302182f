"""Rows that are there several times: how many are distinct, and how many have a copy in another fold.

Folds are disjoint in source rows. Where copies of a row have source rows of their own they lie in different folds,
which then agree because they hold the same rows, and not because other rows would give the same. Whether equal rows
are copies or independent draws (of few features, say) no count can tell: a source row that was given does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MOST_COPIED = 0.05
"""Up to this share of rows with a copy in another fold, folds count as disjoint."""


class CopiesWarning(UserWarning):
    """More than 5 % of the rows of a footprint have copies in other folds."""


class RowCounts(NamedTuple):
    """What is known of the rows behind a footprint."""

    total: int
    distinct: int
    """Different ones among them: by their source rows, or where none were given by their contents."""

    copied: int
    """Rows of which another fold holds a copy; 0 without folds."""

    @property
    def copied_share(self) -> float:
        """Share of the rows that have a copy in another fold."""
        return self.copied / self.total

    @property
    def are_disjoint(self) -> bool:
        """Whether at most 5 % of the rows have a copy in another fold."""
        return self.copied_share <= MOST_COPIED

    def __str__(self) -> str:
        return f"{self.copied} of {self.total} rows have copies in other folds ({self.distinct} are distinct)"


def row_counts(folds: Sequence[Tensor]) -> RowCounts:
    """Count rows by what tells them apart: per fold the source rows or digests of its rows, ``[n]``."""
    rows = np.concatenate([fold.numpy() for fold in folds])
    numbers = np.repeat(np.arange(len(folds)), [len(fold) for fold in folds])
    _, which, counts = np.unique(rows, return_inverse=True, return_counts=True)
    first = np.full(len(counts), len(folds))
    last = np.full(len(counts), -1)
    np.minimum.at(first, which, numbers)
    np.maximum.at(last, which, numbers)
    return RowCounts(len(rows), len(counts), int(counts[first != last].sum()))


def beware_of_copies(counts: RowCounts) -> str | None:
    """Say what copies in other folds do; nothing where there are few."""
    if counts.are_disjoint:
        return None
    return (
        f"{counts}: folds that hold the same rows agree by themselves, so noise ceilings are too high and intervals "
        "too narrow; give all copies of a row one source_row, or, if equal rows are independent draws, each its own"
    )
