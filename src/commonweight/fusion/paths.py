"""Paths between models: weights to fuse them with, point by point."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.names import among
from commonweight.fusion.methods.method import is_number
from commonweight.fusion.modules import open_modules
from commonweight.fusion.tensors import module_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

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
        a: Weights at one corner, one per model, as ``b`` and ``c`` are; by default a corner is one of three models.
        b: Those at the second corner.
        c: Those at the third corner.
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


M = TypeVar("M", bound=nn.Module)

RANDOM = "random"
"""What a walk is said to go to that has no model at its end."""

TOLERANCE = 0.01
"""How far a length may be off, relative to itself, after rounding to the model's type."""


def random_direction(
    model: M, distance_to: nn.Module | Mapping[str, float], *, seed: int = 0, only_moved: bool = False
) -> M:
    r"""Move a model in a random direction, every tensor as far as it would have to go to another model.

    .. math:: \theta' = \theta + d\, \frac{\xi}{\lVert \xi \rVert}, \qquad \xi \sim \mathcal N(0, 1), \quad
        d = \lVert \theta_{\text{other}} - \theta \rVert

    for each floating tensor by itself, buffers included. On the way to another model a shortcut may be lost before the
    task is; it may be lost just as early on the way to nowhere (notebooks of Zaman, Choshen & Srivastava 2024, "Fuse to
    Forget", show both curves). Then it is fragile, and the other model has nothing to do with it.

    With ``only_moved``, entries that are equal in both models stay (ξ is 0 there), and every row of an embedding is a
    step of its own, as long as the row's in the other model; the squares of the rows' lengths sum to d².

    Args:
        model: Where to start; stays as it is.
        distance_to: The other model, or the length of the step by tensor; tensors without a length stay.
        only_moved: Leave entries alone that are equal in both models, and move every row of an embedding (of a
            ``nn.Embedding`` or ``nn.EmbeddingBag``) as far as it moved. Fine-tuning moves the embeddings of words that
            occur, and of frequent ones far more; spread over all words, or evenly over those that moved, a step as long
            would be another kind of step. For a module as ``distance_to`` only.
        seed: Names the direction. A tensor's direction depends on its name and shape too, and on nothing else.

    Returns:
        A new module. Interpolate to it as to any other.

    Raises:
        UsageError: If a length is negative, not finite, or of no floating tensor of the model, or ``only_moved`` goes
            with lengths.
        MeasurementError: If a tensor holds nan or infinity, a length comes out more than 1 % wrong (steps below the
            precision of the model's type), or a variance comes out negative.

    Example:
        >>> a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        >>> c = random_direction(a, b, seed=1)
        >>> torch.allclose((c.weight - a.weight).norm(), (b.weight - a.weight).norm())
        True
        >>> bool((c.weight == b.weight).all())
        False
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed must be a whole number, got {seed!r}")
    if only_moved and not isinstance(distance_to, nn.Module):
        raise UsageError("only_moved needs the other model as distance_to, got lengths")
    others = module_tensors(distance_to) if only_moved and isinstance(distance_to, nn.Module) else {}
    lengths = distances(model, distance_to) if isinstance(distance_to, nn.Module) else _checked(model, distance_to)
    moved = copy.deepcopy(model)
    embeddings = {id(layer.weight) for layer in moved.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)}
    with torch.no_grad():
        for key, tensor in module_tensors(moved).items():
            if lengths.get(key, 0.0) > 0:
                step = _step(key, tensor, lengths[key], seed, others.get(key), by_row=id(tensor) in embeddings)
                tensor.copy_(_moved(key, tensor, step, lengths[key]))
    return moved


def distances(model: nn.Module, other: nn.Module) -> dict[str, float]:
    """Measure the Euclidean distance of two models of one class, by floating tensor."""
    a, b = open_modules([model, other]).models
    found = {}
    for key, facts in a.facts.items():
        if facts.is_floating:
            here, there = (tensors.finite(key).to(device="cpu", dtype=torch.float64) for tensors in (a, b))
            found[key] = float((there - here).norm())
    return found


def _checked(model: nn.Module, lengths: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(lengths, Mapping):
        raise UsageError(f"distance_to must be a module or a mapping of names to lengths, got {type(lengths).__name__}")
    floating = {key: tensor for key, tensor in module_tensors(model).items() if tensor.is_floating_point()}
    for key, length in lengths.items():
        if key not in floating:
            raise UsageError(f"no floating tensor {key!r} in the model; {among(str(key), floating)}")
        if not is_number(length) or length < 0:
            raise UsageError(f"the length for {key} must be a finite number of at least 0, got {length!r}")
    return {key: float(length) for key, length in lengths.items()}


def _step(key: str, tensor: Tensor, length: float, seed: int, other: Tensor | None, *, by_row: bool) -> Tensor:
    """Draw a step of a tensor; with another tensor, through the entries that differ, and row by row if asked."""
    text = f"{seed}:{key}:{list(tensor.shape)}".encode()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1)
    direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    if other is not None:
        change = _exact(other) - _exact(tensor)
        direction *= change != 0
        if by_row:
            rows = direction.norm(dim=1, keepdim=True)
            direction *= change.norm(dim=1, keepdim=True) / rows.where(rows > 0, 1.0)
    found: Tensor = direction * (length / direction.norm())
    return found


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float64)


def _moved(key: str, tensor: Tensor, step: Tensor, length: float) -> Tensor:
    here = _exact(tensor)
    found: Tensor = (here + step).to(tensor.dtype)
    got = float((found.to(torch.float64) - here).norm())
    if not abs(got - length) <= TOLERANCE * length:
        raise MeasurementError(
            f"{key} was to move by {length:.3g} and moved by {got:.3g} in {str(tensor.dtype).removeprefix('torch.')}: "
            "the steps are below the precision of this type; convert the models with .float() or .double() first"
        )
    if key.rpartition(".")[2] == "running_var" and float(found.min()) < 0:
        raise MeasurementError(
            f"{key} is a variance and came out negative; give lengths by name without it: the dict that "
            "commonweight.fusion.paths.distances returns, less this entry"
        )
    return found
