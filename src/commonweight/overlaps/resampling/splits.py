r"""Which folds form the halves of the examples: balanced designs.

Where a Hadamard matrix of order K is at hand (Paley's construction for K - 1 a prime of the form 4m + 3, doubling), its
K - 1 balanced columns are the splits: any two folds are in the same half equally often.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = tuple[int, ...]
MOST_SPLITS = 10
"""Where no Hadamard matrix is at hand, all splits are taken up to this many."""

_SEED = 20170302


@dataclass(frozen=True)
class Splits:
    """Halves of K folds."""

    folds: int
    """K."""

    halves: tuple[tuple[Part, ...], ...]
    """Per split two complementary halves; none for fewer than 2 folds."""

    words: str
    """How they were chosen."""


@cache
def splits_of(folds: int) -> Splits:
    """Choose the splits of K folds; always the same for the same K.

    Args:
        folds: K, at least 0.

    Returns:
        K - 1 splits of a Hadamard matrix where there is one (K = 4, 8, 12, 16, 20, 24, 32, ...); else all balanced
        splits if there are at most 10; else 2 K drawn with a fixed seed. Halves differ in size by at most 1.

    Example:
        >>> design = splits_of(8)
        >>> len(design.halves), design.halves[0]
        (7, ((0, 4, 6, 7), (1, 2, 3, 5)))
    """
    if folds < 2:
        return Splits(folds, (), "no splits")
    matrix = _hadamard(folds) if folds >= 4 else None
    if matrix is not None:
        columns = (matrix * matrix[:, :1]).T[1:] > 0
        halves = tuple((_where(column), _where(~column)) for column in columns)
        return Splits(folds, halves, f"{folds - 1} splits of a Hadamard matrix of order {folds}")
    generator = np.random.default_rng([_SEED, folds])
    size = folds // 2
    count = comb(folds, size) // (2 if folds % 2 == 0 else 1)
    if count <= MOST_SPLITS:
        firsts: list[Part] = [part for part in combinations(range(folds), size) if folds % 2 or 0 in part]
        words = f"all {count} balanced splits of {folds} folds"
    else:
        firsts = [tuple(sorted(generator.permutation(folds)[:size].tolist())) for _ in range(2 * folds)]
        words = f"{2 * folds} balanced splits of {folds} folds, drawn with a fixed seed"
    pairs = tuple((first, tuple(fold for fold in range(folds) if fold not in first)) for first in firsts)
    return Splits(folds, pairs, words)


def _where(chosen: NDArray[np.bool_]) -> Part:
    return tuple(int(fold) for fold in np.flatnonzero(chosen))


def _hadamard(order: int) -> NDArray[np.int64] | None:
    """Give a Hadamard matrix of an order, by Paley's first construction or doubling; None where neither gives one."""
    if order <= 2:
        return np.array([[1, 1], [1, -1]])[:order, :order]
    q = order - 1
    if q % 4 == 3 and all(q % divisor for divisor in range(2, int(q**0.5) + 1)):
        squares = {pow(root, 2, q) for root in range(1, q)}
        core = np.array([[1 if (i - j) % q in squares else -1 for j in range(q)] for i in range(q)])
        np.fill_diagonal(core, 1)
        return np.block([[np.ones((1, 1), int), np.ones((1, q), int)], [-np.ones((q, 1), int), core]])
    half = _hadamard(order // 2) if order % 2 == 0 else None
    return None if half is None else np.block([[half, half], [half, -half]])


@dataclass(frozen=True, eq=False)
class Design:
    """Of which sums of folds roots are taken, and which roots are multiplied."""

    without: list[Part]
    """All folds but each."""

    slots: list[list[Part]]
    """Per split a half, the other, the first half without each of its folds, the other half so."""

    left: list[int]
    """Slots that are multiplied ..."""

    right: list[int]
    """... by slots: always by one of the two halves."""

    versions: NDArray[np.float64]
    """``[K + 1, splits * products]``: 1 where a product is of all folds (0) or without fold k (k + 1), else 0."""


@cache
def design_of(folds: int) -> Design:
    """List the sums and products of K folds, at least 2."""
    slots, versions = [], []
    left, right = [0], [1]
    for halves in splits_of(folds).halves:
        # Of a half of one fold nothing is left without it.
        reduced = [(half, fold) for half, part in enumerate(halves) for fold in part if len(part) > 1]
        slots.append([*halves, *(tuple(f for f in halves[half] if f != fold) for half, fold in reduced)])
        versions += [0, *(fold + 1 for _, fold in reduced)]
        left, right = [0, *range(2, len(slots[-1]))], [1, *(1 - half for half, _ in reduced)]
    without = [tuple(f for f in range(folds) if f != fold) for fold in range(folds)]
    return Design(without, slots, left, right, (np.arange(folds + 1)[:, None] == versions).astype(float))
