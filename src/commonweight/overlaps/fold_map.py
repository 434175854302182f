"""Whether footprints have folds that belong together: the same fold for the same source row.

The map from source rows to folds is recorded. Where rows are numbered as they come, that does not tell whether they
came in the same order; the digests of their contents do.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.errors import MeasurementError, NotComparableError
from commonweight.overlaps.gram import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from commonweight.footprint.footprint import Footprint

TOLERANCE = 0.01
"""Relative, of a parameter's trace: folds may have been written in a shorter format than the whole."""

MOST_ROWS = 0.5
"""From this share of the rows of the smaller footprint on that both hold, they are of the same rows: of independent
draws at most a fifth are rows that each of them holds once, however few different rows there are to draw from."""

MOST_MOVED = 0.05
"""Share of these that may lie in another fold."""


def common_folds(footprints: Mapping[str, Footprint], parameters: Sequence[str]) -> int:
    """Check that leaving out a fold leaves out the same source rows everywhere.

    Args:
        footprints: By name.
        parameters: Those that are compared.

    Returns:
        The number of folds they have; 0 if one of them has none (then there are no intervals).

    Raises:
        NotComparableError: If they have folds that differ in number or in the map from source rows, or two were
            measured on the same rows, most of which lie in other folds.
        MeasurementError: If a fold is empty, or lacks a parameter.
    """
    if not all(footprint.folds for footprint in footprints.values()):
        return 0
    numbers = {name: len(footprint.folds) for name, footprint in footprints.items()}
    maps = {name: _map(footprint) for name, footprint in footprints.items()}
    for words, found in (("numbers of folds", numbers), ("fold maps", maps)):
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{value} in {name!r}" for name, value in found.items())
            raise NotComparableError(
                f"the footprints have different {words}: {listed}; a source row must be in the same fold everywhere: "
                "measure them with one number of folds, such as fisher(..., folds=8), or pass intervals=False to "
                "compare without ceilings and intervals"
            )
    for name, footprint in footprints.items():
        _check(name, footprint, parameters)
    _check_order(footprints)
    return next(iter(numbers.values()))


def _map(footprint: Footprint) -> str:
    described = footprint.metadata.get("folds")
    return str(described.get("map", "not stated")) if isinstance(described, dict) else "not stated"


def _check_order(footprints: Mapping[str, Footprint]) -> None:
    """Check that the same rows lie in the same folds, as far as their contents were digested."""
    different: dict[tuple[int, ...], str] = {}
    for name, footprint in footprints.items():
        if footprint.row_digests:  # sums do not depend on the order within a fold
            different.setdefault(tuple(int(part.sum()) for part in footprint.row_digests.values()), name)
    for (sums, one), (others, other) in combinations(different.items(), 2):
        common, moved = _moved(footprints[one], footprints[other])
        smaller = min(footprints[one].count, footprints[other].count)
        same = (sum(sums) - sum(others)) % 2**64 == 0
        if same or (common >= MOST_ROWS * smaller and moved > MOST_MOVED * common):
            counted = f" ({moved} of {common} rows that each of them holds once)" if common else ""
            raise NotComparableError(
                f"{one!r} and {other!r} were measured on the same rows in another order, which puts them into "
                f"different folds{counted}: noise that both have in common would pass for sharing; number the rows "
                "alike, with an unshuffled loader or a source_row in the batches, and measure again, or pass "
                "intervals=False to compare without ceilings and intervals"
            )


def _moved(one: Footprint, other: Footprint) -> tuple[int, int]:
    """Count the rows that both hold once, and those of them that lie in different folds."""
    (rows, folds), (others, other_folds) = _single(one), _single(other)
    _, here, there = np.intersect1d(rows, others, assume_unique=True, return_indices=True)
    return len(here), int((folds[here] != other_folds[there]).sum())


def _single(footprint: Footprint) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Digests that a footprint holds once, and their folds."""
    parts = [part.numpy() for part in footprint.row_digests.values()]
    folds = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    digests, first, counts = np.unique(np.concatenate(parts), return_index=True, return_counts=True)
    return digests[counts == 1], folds[first[counts == 1]]


def _check(name: str, footprint: Footprint, parameters: Sequence[str]) -> None:
    for index, fold in enumerate(footprint.folds):
        if fold.count < 1:
            raise MeasurementError(
                f"fold {index} of footprint {name!r} holds no examples; measure it with fewer folds or more examples"
            )
        for parameter in parameters:
            if parameter not in fold.tensors:
                raise MeasurementError(f"fold {index} of footprint {name!r} lacks {parameter!r}; measure it again")
            shape, expected = shape_of(fold.tensors, parameter), shape_of(footprint.tensors, parameter)
            if tuple(shape) != tuple(expected):
                raise MeasurementError(
                    f"fold {index} of footprint {name!r}: {parameter!r} has shape {list(shape)}, expected "
                    f"{list(expected)} as in the whole; measure it again"
                )


def check_traces(names: Sequence[str], parameter: str, whole: NDArray[np.float64], folds: NDArray[np.float64]) -> None:
    """Check that the folds of each footprint add up to it.

    Args:
        names: Of the footprints.
        parameter: Which parameter.
        whole: Its trace in each footprint, ``[n]``.
        folds: Its trace in the sum over the folds, ``[n]``.

    Raises:
        MeasurementError: If they do not.
    """
    for name, one, other in zip(names, whole, folds, strict=True):
        if abs(one - other) > TOLERANCE * max(one, other):
            raise MeasurementError(
                f"the folds of footprint {name!r} do not add up to it: {parameter!r} has trace {one:.6g}, and its "
                f"folds {other:.6g}; measure it again"
            )
