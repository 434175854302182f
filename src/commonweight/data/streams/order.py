"""The order in which the settings of a scenario become tasks."""

from __future__ import annotations

from typing import Literal, TypeVar

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
