"""The 2×2 Gram matrix of two inputs of any sort: what the plain measures are computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.compatible import common_parameters
from commonweight.overlaps.measures.gram import ENTRIES_PER_SLICE, fault, flat, gram_of, parameter_gram, to_row_

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.footprints.footprint import Kind


def pair_gram(kind: Kind, **two: Any) -> NDArray[np.float64]:
    """Compute the Gram matrix of two arrays of one shape, or of two footprints (summed over their parameters)."""
    # Arrays are first divided by their largest entry, since their scale cancels in every measure that is not of bits:
    # no entry is too small or too large.
    names = tuple(two)
    if all(isinstance(value, Footprint) for value in two.values()):
        for name, footprint in two.items():
            if footprint.kind != kind:
                raise UsageError(
                    f"{name} is a footprint of kind {footprint.kind}, expected {kind}; "
                    "commonweight.overlap() takes the measure that fits the kind"
                )
        parameters = common_parameters(two).parameters
        return np.asarray(sum(parameter_gram(two, parameter) for parameter in parameters))
    (x, shape_x), (y, shape_y) = (flat(value, name) for name, value in two.items())
    if shape_x != shape_y:
        raise UsageError(
            f"{names[0]} and {names[1]} must have one shape, got {list(shape_x)} and {list(shape_y)}; "
            "reshape or cut them to the part they have in common"
        )
    scales = [_largest(values) if kind != "supermask" else 1.0 for values in (x, y)]

    def prepare(index: int, values: Tensor) -> None:
        complaint = fault(values, kind)
        if complaint:
            raise UsageError(f"{names[index]}: {complaint}; {_REMEDIES[kind]}")
        values /= scales[index]
        to_row_(values, kind)

    halves = (torch.split(values, ENTRIES_PER_SLICE) for values in (x, y))
    return gram_of(zip(*halves, strict=True), 2, prepare)


_REMEDIES: dict[Kind, str] = {
    "fisher": "pass squared gradients, averaged over examples",
    "supermask": "pass the bits of the mask, not its scores",
    "activity": "remove or replace the entries that are not",
}


def _largest(values: Tensor) -> float:
    if not values.numel():
        return 1.0
    low, high = values.aminmax()
    return max(-low.item(), high.item()) or 1.0
