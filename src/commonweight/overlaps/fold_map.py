"""Whether footprints have folds that belong together: the same fold for the same source row.

The map from source rows to folds is recorded; of rows that are numbered as they come their contents tell as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.errors import MeasurementError, NotComparableError
from commonweight.overlaps.gram import shape_of
from commonweight.overlaps.row_order import check_row_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from commonweight.footprint.footprint import Footprint

TOLERANCE = 0.01
"""Relative, of a parameter's trace: folds may have been written in a shorter format than the whole."""


def common_folds(footprints: Mapping[str, Footprint], parameters: Sequence[str]) -> int:
    """Check that leaving out a fold leaves out the same source rows everywhere.

    Args:
        footprints: By name.
        parameters: Those that are compared.

    Returns:
        The number of folds they have; 0 if one of them has none (then there are no intervals).

    Raises:
        NotComparableError: If they have folds that differ in number or in the map from source rows, or more than 5 %
            of the rows that two have in common lie in different folds.
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
    check_row_order(footprints)
    return next(iter(numbers.values()))


def _map(footprint: Footprint) -> str:
    described = footprint.metadata.get("folds")
    return str(described.get("map", "not stated")) if isinstance(described, dict) else "not stated"


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
