"""Mixing weights: one finite number per model, and what a method asks of them."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLERANCE = 1e-6
"""How far from 1 a sum may be for rounding."""


def checked_weights(
    weights: Sequence[float] | None,
    count: int,
    *,
    default: float,
    sum_to_one: bool = True,
    negative: bool = True,
) -> tuple[float, ...]:
    """Check mixing weights.

    Args:
        weights: One per model, or None.
        count: How many models there are.
        default: What every model gets where ``weights`` is None.
        sum_to_one: Whether the sum has to be 1 (within 1e-6).
        negative: Whether a weight may be below 0.

    Returns:
        The weights.

    Raises:
        UsageError: If they are not ``count`` finite numbers, do not sum to 1 or are negative where that matters; the
            message has the sum and what to give instead.

    Example:
        >>> checked_weights(None, 4, default=0.25), checked_weights([1.5, -0.5], 2, default=0.5)
        ((0.25, 0.25, 0.25, 0.25), (1.5, -0.5))
    """
    if weights is None:
        return (default,) * count
    given = list(weights)
    for number, weight in enumerate(given, 1):
        if not is_number(weight):
            raise UsageError(f"weights must be finite numbers, got {weight!r} as number {number}; give plain numbers")
    if len(given) != count:
        raise UsageError(
            f"expected one weight per model, got {_counted(len(given), 'weight')} for {_counted(count, 'model')}; give "
            f"{count}, or none for equal ones"
        )
    found = tuple(float(weight) for weight in given)
    below = [weight for weight in found if weight < 0]
    if below and not negative:
        raise UsageError(
            f"a Fisher-weighted average needs weights of at least 0, got {below[0]:g}: a negative precision means "
            "nothing. To take a model away use task arithmetic"
        )
    total = math.fsum(found)
    if sum_to_one and abs(total - 1) > TOLERANCE:
        listed = ", ".join(f"{weight:g}" for weight in found)
        remedy = "give weights with a sum other than 0"
        if abs(total) > TOLERANCE:
            remedy = f"divided by it they are {', '.join(f'{weight / total:.6g}' for weight in found)}"
        raise UsageError(
            f"weights must sum to 1, got {listed} with the sum {total:.6g}, which would scale all weights of the "
            f"network; {remedy}. Only task arithmetic takes any sum"
        )
    return found


def is_number(value: Any) -> bool:
    """Tell whether something is a finite real number; True and False are none.

    Args:
        value: Anything.

    Returns:
        Whether it is.
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
