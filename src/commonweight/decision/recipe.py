"""How models are fused: the method and its numbers, checked together before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from commonweight.data.suggest import among
from commonweight.decision.mixing import checked_weights, is_number
from commonweight.errors import UsageError

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
        raise UsageError(f"floor must be above 0, got {floor:g}: where every Fisher is 0, 0/0 means nothing")
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
