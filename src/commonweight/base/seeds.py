"""Seeds as users give them, and numbers keyed by integers."""

from __future__ import annotations

import hashlib

import numpy as np

from commonweight.base.errors import UsageError


def checked_seed(seed: int) -> int:
    """Check a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"a seed must be a whole number of at least 0, got {seed!r}")
    return int(seed)


def keyed(*parts: int) -> int:
    """Hash integers to 63 bits, the same on every machine and in every process."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
