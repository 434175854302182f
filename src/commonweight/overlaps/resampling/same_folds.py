"""Whether footprints have folds that belong together: the same fold for the same source row.

The map from source rows to folds is recorded; of rows that are numbered as they come their contents tell as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import MeasurementError, NotComparableError
from commonweight.footprints.slices import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Footprint


TOLERANCE = 0.01
"""Relative, of a parameter's trace: folds may have been written in a shorter format than the whole."""


def common_folds(footprints: Mapping[str, Footprint], parameters: Sequence[str]) -> int:
    """Check that leaving out a fold leaves out the same source rows everywhere."""
    if not all(footprint.folds for footprint in footprints.values()):
        return 0
    numbers = {name: len(footprint.folds) for name, footprint in footprints.items()}
    maps = {name: _map(footprint) for name, footprint in footprints.items()}
    for words, found in (("numbers of folds", numbers), ("fold maps", maps)):
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{value} in {name!r}" for name, value in found.items())
            raise NotComparableError(
                f"the footprints have different {words}: {listed}; a source row must be in the same fold everywhere: "
                "measure them with one number of folds, such as fisher(..., folds=8), or pass {intervals} to "
                "compare without noise ceilings and intervals",
                intervals=False,
            )
    for name, footprint in footprints.items():
        _check(name, footprint, parameters)
    check_row_order(footprints)
    return next(iter(numbers.values()))


def _map(footprint: Footprint) -> str:
    described = footprint.metadata.get("folds")
    return str(described.get("map", "not stated")) if isinstance(described, dict) else "not stated"


def _check(name: str, footprint: Footprint, parameters: Sequence[str]) -> None:
    shapes = {parameter: list(shape_of(footprint.tensors, parameter)) for parameter in parameters}
    for index, fold in enumerate(footprint.folds):
        if fold.count < 1:
            raise MeasurementError(
                f"fold {index} of footprint {name!r} holds no examples; measure it with fewer folds or more examples"
            )
        for parameter in parameters:
            if parameter not in fold.tensors:
                raise MeasurementError(f"fold {index} of footprint {name!r} lacks {parameter!r}; measure it again")
            shape = list(shape_of(fold.tensors, parameter))
            if shape != shapes[parameter]:
                raise MeasurementError(
                    f"fold {index} of footprint {name!r}: {parameter!r} has shape {shape}, expected "
                    f"{shapes[parameter]} as in the whole; measure it again"
                )


def check_traces(names: Sequence[str], parameter: str, whole: NDArray[np.float64], folds: NDArray[np.float64]) -> None:
    """Check that the folds of each footprint add up to it."""
    for name, one, other in zip(names, whole, folds, strict=True):
        if abs(one - other) > TOLERANCE * max(one, other):
            raise MeasurementError(
                f"the folds of footprint {name!r} do not add up to it: {parameter!r} has trace {one:.6g}, and its "
                f"folds {other:.6g}; measure it again"
            )


DRAWN = math.exp(-1)
"""Of independent draws at most this share of the rows of one is expected to be held once by both: what one holds once,
the other draws exactly once with a chance of about 1/e at most, however often and from whatever it draws."""


CHANCE = 1e-6
"""At most, that independent draws have more rows in common (Hoeffding's bound)."""


MOST_MOVED = 0.05
"""Share of the rows in common that may lie in another fold."""


def check_row_order(footprints: Mapping[str, Footprint]) -> None:
    """Check that rows that footprints have in common lie in the same folds, as far as contents were digested."""
    # Of two that hold the same rows all count, copies too. Of others, and where all rows of both were given source
    # rows,
    # those count that each of them holds once, where there are more than independent draws have in common.
    different: dict[tuple[int, ...], _Held] = {}
    for name, footprint in footprints.items():
        if footprint.row_digests:
            sums = tuple(int(part.sum()) for part in footprint.row_digests.values())
            if sums not in different:  # they do not depend on the order within a fold
                different[sums] = _Held.of(name, footprint)
    for one, other in combinations(different.values(), 2):
        same = np.array_equal(one.digests, other.digests)
        every = same and not (one.is_numbered and other.is_numbered)
        common, moved = one.moved(other) if every else one.moved_singles(other)
        most_drawn = 0 if every else most_in_common(min(len(one.digests), len(other.digests)))
        if common > most_drawn and moved > MOST_MOVED * common:
            raise NotComparableError(_refusal(one.name, other.name, common, moved, same=same), intervals=False)


def most_in_common(count: int) -> float:
    """Bound how many rows two sets of independent draws have in common that each of them holds once.

    Args:
        count: Rows of the smaller set.

    Returns:
        A number that is exceeded with a chance of at most one in a million; of few rows it is more than all.

    Example:
        >>> [round(most_in_common(count) / count, 2) for count in (10, 24, 200, 2000, 60000)]
        [1.2, 0.9, 0.55, 0.43, 0.38]
    """
    return DRAWN * count + math.sqrt(-math.log(CHANCE) * count / 2)


def _refusal(one: str, other: str, common: int, moved: int, *, same: bool) -> str:
    if same:
        found = f"were measured on the same rows in another order, which puts {moved} of {common} into different folds"
        remedy = "number the rows alike, with an unshuffled loader or a source_row, in batches or as a column"
    else:
        found = f"share {common} rows, of which {moved} lie in different folds"
        remedy = "give every row a source_row, the same one for the same row everywhere"
    return (
        f"{one!r} and {other!r} {found}: noise that both have in common would pass for sharing; {remedy}, and measure "
        "again, or pass {intervals} to compare without noise ceilings and intervals"
    )


@dataclass(frozen=True)
class _Held:
    """The rows of one footprint, sorted by digest."""

    name: str
    digests: NDArray[np.int64]
    folds: NDArray[np.int64]
    once: NDArray[np.int64]
    """Digests of the rows that it holds once."""

    folds_of_once: NDArray[np.int64]

    is_numbered: bool
    """Whether its rows were given source rows, which say whether equal ones are copies."""

    @classmethod
    def of(cls, name: str, footprint: Footprint) -> _Held:
        parts = [part.numpy() for part in footprint.row_digests.values()]
        digests = np.concatenate(parts)
        order = np.argsort(digests)
        digests = digests[order]
        folds = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
        changes = np.concatenate([[True], digests[1:] != digests[:-1], [True]])
        single = changes[1:] & changes[:-1]
        return cls(name, digests, folds, digests[single], folds[single], bool(footprint.source_rows))

    def moved(self, other: _Held) -> tuple[int, int]:
        """Count all rows, and those that lie in different folds, where the other holds the same ones."""
        number = np.cumsum(np.concatenate([[False], self.digests[1:] != self.digests[:-1]]))
        folds = 1 + max(self.folds.max(), other.folds.max())
        per_fold = [
            np.bincount(number * folds + each.folds, minlength=(number[-1] + 1) * folds) for each in (self, other)
        ]
        count = len(self.digests)
        return count, count - int(np.minimum(*per_fold).sum())

    def moved_singles(self, other: _Held) -> tuple[int, int]:
        """Count the rows that both hold once, and those of them that lie in different folds."""
        if not len(other.once):
            return 0, 0
        at = np.searchsorted(other.once, self.once).clip(max=len(other.once) - 1)
        both = other.once[at] == self.once
        return int(both.sum()), int((self.folds_of_once != other.folds_of_once[at])[both].sum())
