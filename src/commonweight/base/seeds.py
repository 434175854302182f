"""Seeds as users give them."""

from __future__ import annotations

import numpy as np

from commonweight.base.errors import UsageError


def checked_seed(seed: int) -> int:
    """Check a seed.

    Args:
        seed: What was given.

    Returns:
        The same.

    Raises:
        UsageError: If it is not a whole number of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"a seed must be a whole number of at least 0, got {seed!r}")
    return int(seed)
