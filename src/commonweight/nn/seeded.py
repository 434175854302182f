"""Weights drawn at random are drawn under one seed, so that loading twice gives one model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

DRAW_SEED = 0


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's generator of the processor with :data:`DRAW_SEED`; on leaving its former state is back.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(DRAW_SEED)
        yield
