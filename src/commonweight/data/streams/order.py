"""The order in which the settings of a scenario become tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import numpy as np

from commonweight.data.streams.chance import Purpose, permutation
from commonweight.errors import UsageError

Order = Literal["given", "shuffled"]
"""Whether tasks come in the stated order, or in one drawn from the seed."""

Thing = TypeVar("Thing")


def checked_order(order: str) -> None:
    """Check the word for an order.

    Args:
        order: What was given.

    Raises:
        UsageError: If it is neither ``given`` nor ``shuffled``.
    """
    if order not in {"given", "shuffled"}:
        raise UsageError(f"order must be 'given' or 'shuffled', got {order!r}")


def listed(name: str, given: Any) -> tuple[Any, ...]:
    """Take an option that lists things.

    Args:
        name: The option's name.
        given: What was given.

    Returns:
        The things.

    Raises:
        UsageError: If it is a text, or no list at all.
    """
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
    """Put the settings of the tasks in order.

    Args:
        things: One per task.
        order: As they are, or drawn from the seed.
        seed: The seed.

    Returns:
        The same things.
    """
    if order == "given":
        return things
    return [things[place] for place in permutation(len(things), seed, Purpose.SETTINGS).tolist()]
