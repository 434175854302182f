"""What may be compared: turning inputs into flat tensors, and entries into the rows of a Gram matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.errors import UsageError
from commonweight.footprint.footprint import Footprint

if TYPE_CHECKING:
    from torch import Tensor

    from commonweight.footprint.footprint import Kind

_NATIVE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def flat(value: Any, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """Turn an array-like into a flat CPU tensor of real numbers.

    Args:
        value: A torch tensor on any device, a NumPy array, nested lists or a number; bool, integer or real.
        name: The argument's name, for the error.

    Returns:
        The entries as a 1-D tensor (float16, bfloat16, float32 or float64), and the shape they came in.

    Raises:
        UsageError: If it is not an array of real numbers.
    """
    if isinstance(value, Footprint):
        raise UsageError(
            f"{name} is a footprint and the other argument is not: expected two arrays or two footprints; "
            f"pass one tensor of it, such as footprint[{value.names[0]!r}], or two footprints"
        )
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
        if tensor.is_complex():
            raise UsageError(_not_real(name, str(tensor.dtype)))
        return tensor.to(tensor.dtype if tensor.dtype in _NATIVE else torch.float64).reshape(-1), tuple(tensor.shape)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(_not_real(name, f"{type(value).__name__} ({error})")) from None
    if array.dtype.kind not in "biuf":
        raise UsageError(_not_real(name, f"{type(value).__name__} of dtype {array.dtype}"))
    return torch.from_numpy(np.array(array, dtype=np.float64).reshape(-1)), array.shape


def fault(values: Tensor, kind: Kind) -> str | None:
    """Say what is wrong with the entries of a footprint of some kind.

    Args:
        values: Entries, any shape, float64.
        kind: ``fisher`` (finite, at least 0), ``supermask`` (0 or 1) or ``activity`` (finite).

    Returns:
        A sentence that says what was expected and the first entry that is not so; None if all is well.
    """
    if not values.numel():
        return None
    if kind == "supermask":
        bad = (values != 0) & (values != 1)
        return f"a mask holds only 0 and 1, got {values[bad][0].item():g}" if bad.any() else None
    low, high = (bound.item() for bound in values.aminmax())  # both are nan if any entry is
    if math.isfinite(low) and math.isfinite(high) and (low >= 0 or kind == "activity"):
        return None
    bad = ~values.isfinite()
    if kind == "fisher":
        bad |= values < 0
    expected = "finite and at least 0" if kind == "fisher" else "finite"
    return f"entries must be {expected}, got {values[bad][0].item():g}"


def to_row_(values: Tensor, kind: Kind) -> None:
    """Turn entries into a row of the Gram matrix, in place: the square root for ``fisher``, else as they are.

    Args:
        values: Entries without :func:`fault`, float64; overwritten.
        kind: Kind of the footprint.
    """
    if kind == "fisher":
        values.sqrt_()


def _not_real(name: str, got: str) -> str:
    return f"{name} must be real numbers (a torch tensor, a NumPy array or nested lists of equal length), got {got}"
