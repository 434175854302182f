"""Paths between models: weights to fuse them with, point by point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.decision.mixing import is_number
from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, ...]
LEFT, RIGHT = (1.0, 0.0), (0.0, 1.0)
CORNERS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def interpolation_path(a: Sequence[float] = LEFT, b: Sequence[float] = RIGHT, points: int = 11) -> tuple[Point, ...]:
    r"""Walk from one fusion to another in equal steps.

    .. math:: w(\alpha) = (1 - \alpha)\, a + \alpha\, b, \qquad \alpha = 0, \tfrac1{p - 1}, \dots, 1

    Args:
        a: Weights at the start, one per model; by default all of the first of two models.
        b: Weights at the end, as many; by default all of the second.
        points: How many, both ends counted; at least 2.

    Returns:
        Weight vectors, the first exactly ``a`` and the last exactly ``b``; with the sum 1 where both have it.

    Raises:
        UsageError: If the ends are not finite numbers of one length, or there are fewer than two points.

    Example:
        >>> interpolation_path(points=3)
        ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
        >>> interpolation_path((1, 0, 0), (0, 0.5, 0.5), points=3)[1]
        (0.5, 0.25, 0.25)
    """
    _check_steps("points", points, 2)
    ends = _corners({"a": a, "b": b})
    steps = points - 1
    return tuple(_mixed(ends, (steps - step, step)) for step in range(points))


def simplex_path(
    a: Sequence[float] = CORNERS[0],
    b: Sequence[float] = CORNERS[1],
    c: Sequence[float] = CORNERS[2],
    steps: int = 10,
) -> tuple[Point, ...]:
    r"""Cover the triangle between three fusions evenly.

    .. math:: w = (i\,a + j\,b + k\,c) / s, \qquad i + j + k = s

    Args:
        a: Weights at the first corner, one per model; by default all of the first of three models.
        b: Weights at the second corner, as many.
        c: Weights at the third corner, as many.
        steps: Steps along each side, at least 1.

    Returns:
        ``(steps + 1) (steps + 2) / 2`` weight vectors, each point of the triangle once, row by row from ``a``.

    Raises:
        UsageError: If the corners are not finite numbers of one length, or there are no steps.

    Example:
        >>> simplex_path(steps=1)
        ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        >>> len(simplex_path(steps=10))
        66
    """
    _check_steps("steps", steps, 1)
    corners = _corners({"a": a, "b": b, "c": c})
    return tuple(
        _mixed(corners, (steps - row, row - along, along)) for row in range(steps + 1) for along in range(row + 1)
    )


def _mixed(ends: Sequence[Point], parts: Sequence[int]) -> Point:
    whole = sum(parts)
    if whole in parts:
        return ends[parts.index(whole)]  # exactly: 7 x / 7 need not be x
    columns = zip(*ends, strict=True)
    return tuple(
        math.fsum(part * weight for part, weight in zip(parts, column, strict=True)) / whole for column in columns
    )


def _corners(given: dict[str, Sequence[float]]) -> list[Point]:
    found = {}
    for name, weights in given.items():
        for weight in weights:
            if not is_number(weight):
                raise UsageError(f"{name} must be weights, one finite number per model, got {weight!r} among them")
        found[name] = tuple(float(weight) for weight in weights)
    lengths = {name: len(weights) for name, weights in found.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        shown = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise UsageError(f"expected one weight per model at every end, got {shown}; give all ends for the same models")
    return list(found.values())


def _check_steps(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
