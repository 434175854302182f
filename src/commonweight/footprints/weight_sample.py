"""A fixed sample of every weight matrix. It tells a shared initialisation, and whose Fisher a footprint is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from commonweight.base.seeds import keyed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

Sample = tuple[Mapping[str, "Tensor"], Mapping[str, float]]
"""Entries by name of their matrix, and by the same names the size of the matrix over that of its sample."""

ENTRIES = 1024
"""Entries kept of each weight matrix."""


def weight_sample(weights: Iterable[tuple[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Take at most 1024 entries of every weight matrix, at places that only its shape decides; skip vectors."""
    sample, scale = {}, {}
    for name, weight in weights:
        if weight.dim() < 2 or not weight.numel():
            continue
        flat = weight.detach().reshape(-1)
        if flat.numel() > ENTRIES:
            generator = torch.Generator().manual_seed(keyed(*weight.shape))
            places = torch.randint(flat.numel(), (ENTRIES,), generator=generator)
            flat = flat[places.to(flat.device)]
        sample[name] = flat.float().cpu().clone()
        scale[name] = weight.numel() / flat.numel()
    return sample, scale
