"""Random choices that depend on a name alone: the seed, the row, the rule.

No order of calls, number of processes or cache can change them, because nothing is drawn from a common stream.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def keyed(*parts: int | str) -> int:
    """Hash numbers and names to 64 bits, the same on every machine and in every process."""
    text = "\x1f".join(["commonweight shortcuts", *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def choose(source_rows: Sequence[int], share: float, *parts: int | str) -> set[int]:
    """Choose places of a share of rows by the smallest hashes: nested for growing shares, whatever the rows' order."""
    hashes = [(keyed(*parts, row), row, position) for position, row in enumerate(source_rows)]
    return {position for _, _, position in sorted(hashes)[: round(share * len(hashes))]}
