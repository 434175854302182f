"""Folds: disjoint parts of the examples, decided by the source row alone.

Two footprints made from the same source rows, even with different words planted in them, have the same fold map.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLD_MAP = "blake2b-64(decimal source row) mod folds"


def keyed(*parts: int) -> int:
    """Hash integers to 63 bits, the same on every machine and in every process."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def fold_of(source_row: int, folds: int) -> int:
    """Tell the fold of a source row.

    Args:
        source_row: The row's number in its data set.
        folds: How many folds there are, at least 1.

    Returns:
        A number from 0 to ``folds - 1``.

    Example:
        >>> [fold_of(row, 4) for row in range(8)]
        [2, 3, 2, 0, 3, 0, 2, 1]
    """
    return keyed(source_row) % folds


@dataclass(frozen=True)
class FoldSorted:
    """Batches promised to come fold by fold, each within one fold: measured without holding them in memory."""

    batches: Iterable[Any]
    folds: int

    by_position: bool = False
    """Whether the source rows are but places in a file: then nobody said that rows of equal content are no copies."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __length_hint__(self) -> int:
        return length_hint(self.batches)
