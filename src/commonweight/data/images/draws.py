"""Random choices of a stream, each from a generator of its own that is named by the seed, the purpose and the task.

Nothing is drawn from a common or global generator, so no order of access, worker or other library can change a choice.
Permutations are made by sorting the raw 64-bit numbers of PCG64, which NumPy promises to keep the same for ever.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch

from commonweight.base.seeds import checked_seed


class Purpose(IntEnum):
    """What a choice is for; two purposes never share their numbers."""

    PIXELS = 0
    CLASSES = 1
    SETTINGS = 2
    ROWS = 3
    LABELS = 4
    BATCHES = 5


def permutation(size: int, seed: int, purpose: Purpose, *key: int) -> torch.Tensor:
    """Order the numbers 0 to ``size - 1`` at random, by the arguments alone; ``key`` is, for example, the task."""
    checked_seed(seed)
    words = np.random.SeedSequence(entropy=int(seed), spawn_key=(int(purpose), *map(int, key)))
    return torch.from_numpy(np.argsort(np.random.PCG64(words).random_raw(size), kind="stable"))
