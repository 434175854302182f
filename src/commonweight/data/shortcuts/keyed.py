"""Random choices that depend on a name alone: the seed, the row, the rule.

No order of calls, number of processes or cache can change them, because nothing is drawn from a common stream.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def keyed(*parts: int | str) -> int:
    """Hash numbers and names to 64 bits, the same on every machine and in every process."""
    text = "\x1f".join(["commonweight shortcuts", *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def generator(*parts: int | str) -> random.Random:
    """Make the random generator of a key.

    Args:
        *parts: The key.

    Returns:
        A generator of its own, in the same state for the same key.

    Example:
        >>> generator("op", 7).random() == generator("op", 7).random() != generator("op", 8).random()
        True
    """
    return random.Random(keyed(*parts))  # noqa: S311


def choose(source_rows: Sequence[int], share: float, *parts: int | str) -> set[int]:
    """Choose a share of rows by the smallest hashes: nested for growing shares, whatever the rows' order.

    Args:
        source_rows: The rows' names.
        share: How many of them, from 0 to 1; rounded to whole rows.
        *parts: The key of the choice.

    Returns:
        Positions in ``source_rows``.

    Example:
        >>> sorted(choose([10, 11, 12, 13, 14], 0.4, "a")), sorted(choose([14, 13, 12, 11, 10], 0.4, "a"))
        ([1, 2], [2, 3])
    """
    hashes = [(keyed(*parts, row), row, position) for position, row in enumerate(source_rows)]
    return {position for _, _, position in sorted(hashes)[: round(share * len(hashes))]}
