"""Seeds as users give them."""

from __future__ import annotations

import numpy as np

from commonweight.base.errors import UsageError


def checked_seed(seed: int) -> int:
    """Check a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"a seed must be a whole number of at least 0, got {seed!r}")
    return int(seed)
