"""What a fusion method is: a formula on one tensor of every model, its parameters, and what it needs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from commonweight.base.errors import UsageError
from commonweight.base.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from commonweight.base.settings import Kind, Setting

TOLERANCE = 1e-6
"""How far from 1 the sum of weights may be for rounding."""


@dataclass(frozen=True)
class Entries:
    """One tensor of every model, and what else a formula sees of it."""

    models: Iterable[Tensor]
    """That of each model. Shape ``[*w]``, floating; read when it is asked for, so that few are in memory."""

    weights: Sequence[float]
    """One per model, as checked."""

    base: Tensor | None = None
    """That of the base. Shape ``[*w]``; None unless ``needs_base``."""

    fishers: Iterable[Tensor] = ()
    """Its Fisher for each model. Shape ``[*w]``, float64, at least 0; empty unless ``needs_fishers``."""


@dataclass
class Method(ABC):
    """One way to fuse models. A new one is a subclass in a file of its own and a line in ``METHODS``.

    Class attributes say what it is and needs; its parameters are dataclass fields made with ``setting``, and become
    keywords of :func:`commonweight.fuse` and options of ``commonweight fuse``. One instance serves one fusion.
    """

    name: ClassVar[str]
    """What ``method=`` takes; with hyphens also what ``--method`` takes."""

    title: ClassVar[str]
    """What reports call it, its source in parentheses."""

    summary: ClassVar[str]
    """What it does, a few words for the command line."""

    needs_base: ClassVar[bool] = False
    """Whether it starts from what the models were fine-tuned from."""

    needs_fishers: ClassVar[bool] = False
    """Whether it takes a Fisher of every model. Tensors that no Fisher covers are then averaged plainly."""

    sums_to_one: ClassVar[bool] = True
    """Whether weights have to sum to 1. Equal ones, the default, are then 1 / n each, else 1 each."""

    takes_negative: ClassVar[bool] = True
    """Whether a weight may be below 0."""

    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)
    """Weights that the formula counted over all tensors so far, by a code; for the record."""

    @abstractmethod
    def tensor(self, entries: Entries) -> Tensor:
        """Fuse one tensor ``[*w]``; the result is rounded to the type of the models."""

    @property
    def normalization(self) -> str:
        """What each Fisher is divided by before the formula sees it."""
        return "norm"

    @classmethod
    def parameters(cls) -> dict[str, tuple[Setting, Kind]]:
        """List the parameters by name: what is said of each, and its type."""
        return {field.name: (said, kind) for field, said, kind in settings_of(cls) if said is not None}

    @classmethod
    def in_words(cls) -> str:
        """Name it within a sentence."""
        return cls.name.replace("_", " ")

    def settings(self) -> Mapping[str, float | str]:
        """Give the value of every parameter."""
        return {name: getattr(self, name) for name in self.parameters()}

    @classmethod
    def checked_weights(cls, weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
        """Check mixing weights: one finite number per model, with the sum and signs that the method takes."""
        if weights is None:
            return ((1 / count) if cls.sums_to_one else 1.0,) * count
        given = list(weights)
        for number, weight in enumerate(given, 1):
            if not is_number(weight):
                raise UsageError(
                    f"weights must be finite numbers, got {weight!r} as number {number}; give plain numbers"
                )
        if len(given) != count:
            raise UsageError(
                f"expected one weight per model, got {_counted(len(given), 'weight')} for {_counted(count, 'model')}; "
                f"give {count}, or none for equal ones"
            )
        found = tuple(map(float, given))
        if not cls.takes_negative and min(found) < 0:
            raise UsageError(
                f"{cls.in_words()} takes weights of at least 0, got {min(found):g}. To take a model away use task "
                "arithmetic"
            )
        total = math.fsum(found)
        if cls.sums_to_one and abs(total - 1) > TOLERANCE:
            listed = ", ".join(f"{weight:g}" for weight in found)
            remedy = "give weights with a sum other than 0"
            if abs(total) > TOLERANCE:
                remedy = f"divided by it they are {', '.join(f'{weight / total:.6g}' for weight in found)}"
            raise UsageError(
                f"weights must sum to 1, got {listed} with the sum {total:.6g}, which would scale all weights of the "
                f"network; {remedy}. Only task arithmetic takes any sum"
            )
        return found


def moved(start: Tensor | None, models: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    r"""Add weighted differences from a start to it.

    .. math:: \theta = \theta_0 + \sum_i w_i (\theta_i - \theta_0)

    Models of a fusion lie close together, so differences are small and their rounding smaller still: equal models give
    themselves, bit for bit. A model of weight 0 changes no bit.

    Args:
        start: θ₀. Shape ``[*w]``; None for the first model of a weight other than 0.
        models: The tensor of each model. Shape ``[*w]``; read one at a time.
        weights: One per model.

    Returns:
        ``[*w]``, float64 for float64 tensors, else float32; it may be the start itself.

    Raises:
        ValueError: If there is no start, and every weight is 0.

    Example:
        >>> from torch import tensor
        >>> moved(tensor([1.0]), [tensor([2.0]), tensor([4.0])], [0.5, 0.5])
        tensor([3.])
    """
    each = iter(models)  # ``next`` and not ``zip``: no tensor of a model is kept while the next is read
    start = None if start is None else widened(start)
    sum_of_steps = None
    for weight in weights:
        if weight == 0:
            next(each)
        elif start is None:
            start = widened(next(each))
        else:
            step = (widened(next(each)) - start).mul_(weight)
            sum_of_steps = step if sum_of_steps is None else sum_of_steps.add_(step)
    if start is None:
        raise ValueError("expected weights with the sum 1, got none that is not 0")
    return start if sum_of_steps is None else sum_of_steps.add_(start)


def widened(tensor: Tensor) -> Tensor:
    """Compute in float64 for float64 tensors, else in float32."""
    return tensor if tensor.dtype.itemsize == 8 else tensor.float()


def is_number(value: Any) -> bool:
    """Tell whether something is a finite real number; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
