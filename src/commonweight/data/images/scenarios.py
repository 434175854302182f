"""What sets the tasks of a stream apart: the pixels' order, an angle, the classes, or the order of a central patch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.data.images.changes import Change, Unchanged
from commonweight.data.images.draws import Purpose, permutation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Setting:
    """What a scenario may know of the stream it makes tasks for."""

    shape: tuple[int, int, int]
    """Channels, height and width of the images."""

    classes: tuple[str, ...]
    """Names of the classes of the images."""

    tasks: int
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How one task is made from the images."""

    word: str
    """What names the task behind its number: ``permuted``, ``45deg``."""

    change: Change = field(default_factory=Unchanged)
    classes: tuple[int, ...] | None = None
    """Classes whose rows belong to the task; None is all."""

    remap: bool = False
    """Whether the labels are counted from 0 within ``classes``."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the record says of the task: plain JSON values."""


class Scenario(Protocol):
    """A family of tasks made from the same images. Any object with these attributes serves."""

    @property
    def name(self) -> str:
        """A word for records."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its settings as plain JSON values."""

    @property
    def count(self) -> int | None:
        """How many tasks it has by itself; None is as many as asked for."""

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Say how a task is made.

        Args:
            setting: The stream.
            index: The task, from 0.

        Returns:
            The recipe, which depends on the arguments alone.
        """

    def truth(self, setting: Setting) -> np.ndarray | None:
        """Say how similar the tasks are known to be.

        Args:
            setting: The stream.

        Returns:
            ``[tasks, tasks]``, float64, symmetric, 1 on the diagonal, larger is more alike; None where nothing is
            known.
        """


Order = Literal["given", "shuffled"]
"""Whether tasks come in the stated order, or in one drawn from the seed."""


Thing = TypeVar("Thing")


def checked_order(order: str) -> None:
    """Check the word for an order."""
    if order not in {"given", "shuffled"}:
        raise UsageError(f"{{argument}} must be 'given' or 'shuffled', got {order!r}", argument="order")


def listed(name: str, given: Any) -> tuple[Any, ...]:
    """Take an option that lists things."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{name} must be a list, got {given!r}")
    return tuple(given)


def whole(value: Any) -> int | None:
    """Take a whole number.

    Args:
        value: What was given.

    Returns:
        The number; None if it is none.

    Example:
        >>> whole(np.int64(3)), whole(3.0), whole(True)
        (3, None, None)
    """
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None


def in_order(things: list[Thing], order: Order, seed: int) -> list[Thing]:
    """Put the settings of the tasks in order."""
    if order == "given":
        return things
    return [things[place] for place in permutation(len(things), seed, Purpose.SETTINGS).tolist()]
