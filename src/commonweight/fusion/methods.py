"""How models are fused: the method and its numbers, checked together before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.errors import UsageError
from commonweight.base.names import among

if TYPE_CHECKING:
    from collections.abc import Sequence


Method = Literal["average", "task_arithmetic", "fisher"]


METHODS: tuple[Method, ...] = ("average", "task_arithmetic", "fisher")


Normalize = Literal["norm", "trace", "none"]


NORMALIZATIONS: tuple[Normalize, ...] = ("norm", "trace", "none")


_WORDS = {"average": "average", "task_arithmetic": "task arithmetic", "fisher": "fisher"}


FLOOR = 1e-6
"""As in the code of Matena & Raffel."""


@dataclass(frozen=True)
class Recipe:
    """A method and its numbers; those the method does not use are None."""

    method: Method
    weights: tuple[float, ...]
    """One per model."""

    scale: float | None = None
    """Task arithmetic: what the sum of task vectors is multiplied by."""

    floor: float | None = None
    """Fisher: the least a scaled Fisher counts for."""

    normalize: Normalize | None = None
    """Fisher: how Fishers of different scale are made comparable."""


def make_recipe(
    method: str,
    count: int,
    weights: Sequence[float] | None = None,
    *,
    scale: float | None = None,
    floor: float | None = None,
    normalize: str | None = None,
    has_base: bool = False,
    has_footprints: bool = False,
) -> Recipe:
    """Check a method and its numbers, and fill in what was not given.

    Args:
        method: ``average``, ``task_arithmetic`` or ``fisher``.
        count: How many models there are.
        weights: One per model; None: ``1 / count`` each, for task arithmetic 1 each.
        scale: For task arithmetic; None is 1.
        floor: For ``fisher``, above 0; None is 1e-6.
        normalize: For ``fisher``; None is ``norm``.
        has_base: Whether a base was given.
        has_footprints: Whether footprints were given.

    Returns:
        The recipe.

    Raises:
        UsageError: If the method is unknown, lacks what it needs, was given what it does not use, or a number is out of
            range.

    Example:
        >>> make_recipe("average", 2)
        Recipe(method='average', weights=(0.5, 0.5), scale=None, floor=None, normalize=None)
    """
    if method not in METHODS:
        raise UsageError(f"no method {method!r}; {among(str(method), METHODS)}")
    if count < 1:
        raise UsageError("expected at least one model to fuse, got none; give models or checkpoint folders")
    _check_used(method, {"scale": scale is not None, "base": has_base}, "task_arithmetic")
    fisher_only = {"floor": floor is not None, "normalize": normalize is not None, "footprints": has_footprints}
    _check_used(method, fisher_only, "fisher")
    if method == "average":
        return Recipe("average", checked_weights(weights, count, default=1 / count))
    if method == "task_arithmetic":
        if not has_base:
            raise UsageError(
                "task arithmetic needs the base the models were fine-tuned from, got none; give the starting "
                "checkpoint as the base, with the head it had before fine-tuning"
            )
        scale = _number("scale", 1.0 if scale is None else scale)
        return Recipe("task_arithmetic", checked_weights(weights, count, default=1.0, sum_to_one=False), scale)
    if not has_footprints:
        raise UsageError(
            "a Fisher-weighted average needs a footprint of each model, got none; measure them with commonweight "
            "fisher, and give them in the order of the models"
        )
    floor = _number("floor", FLOOR if floor is None else floor)
    if floor <= 0:
        why = "where every Fisher is 0, 0/0 means nothing"
        raise UsageError(f"{{argument}} must be above 0, got {floor:g}: {why}", argument="floor")
    if normalize is not None and normalize not in NORMALIZATIONS:
        raise UsageError(f"no normalization {normalize!r}; {among(str(normalize), NORMALIZATIONS)}")
    shares = checked_weights(weights, count, default=1 / count, negative=False)
    return Recipe("fisher", shares, floor=floor, normalize=normalize or "norm")


def _check_used(method: str, given: dict[str, bool], owner: Method) -> None:
    for option, is_given in given.items():
        if is_given and method != owner:
            raise UsageError(f"{option} is for {_WORDS[owner]}, and the method is {_WORDS[method]}; leave it out")


def _number(name: str, value: float) -> float:
    if not is_number(value):
        raise UsageError(f"{name} must be a finite number, got {value!r}")
    return float(value)


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
    """Tell whether something is a finite real number; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
