"""Hard routing: some rows change only the weights of a set, all other rows only the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from commonweight.base.seeds import keyed
from commonweight.data.batching import TokenBatches
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.sets import complement, drawn
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from commonweight.data.batching import Encoded

By = Literal["weights", "rows"]
BATCH, LEARNING_RATE, WEIGHT_DECAY = 32, 1e-3, 0.01


def draw_set(model: nn.Module, share: float, by: By, seed: int) -> PackedMasks:
    """Draw a share of every parameter: single weights, or whole rows of matrices and single entries of vectors."""
    found = {}
    for number, (name, weight) in enumerate(model.named_parameters()):
        units = len(weight) if by == "rows" else weight.numel()
        picked = drawn(torch.ones(units, dtype=torch.bool), round(share * units), keyed(seed, number))
        mask = picked.repeat_interleave(weight.numel() // units).reshape(weight.shape)
        found[name] = Bits.of(mask)
    return PackedMasks(found)


def draw_beside(first: PackedMasks, common: float, seed: int) -> PackedMasks:
    """Draw a set as large as the first in every parameter, of which a share is in the first."""
    found = {}
    for number, name in enumerate(first):
        inside = first[name].flatten()
        count = int(inside.sum())
        kept = round(common * count)
        mask = drawn(inside, kept, keyed(seed, number, 0)) | drawn(~inside, count - kept, keyed(seed, number, 1))
        found[name] = Bits.of(mask.reshape(first.shape(name)))
    return PackedMasks(found)


class RoutedAdamW:
    """AdamW of one kind of rows, with moments of its own, whose update is exactly 0 outside its set."""

    def __init__(self, model: nn.Module, chosen: PackedMasks, steps: int) -> None:
        self._weights = dict(model.named_parameters())
        self._masks = {name: chosen[name] for name in self._weights}
        self._adamw = torch.optim.AdamW(self._weights.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        warm_up = max(1, steps // 10)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adamw, lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))
        )

    def step(self, loss: Tensor) -> None:
        """Take one step, then put every weight outside the set back: after momentum and weight decay."""
        self._adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights.values(), 1.0)
        before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._adamw.step()
        self._schedule.step()
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(torch.where(self._masks[name], weight, before[name]))


def train_routed(
    model: Any, inside: Sequence[Encoded], outside: Sequence[Encoded], chosen: PackedMasks, *, steps: int, seed: int
) -> None:
    """Train in place: first rows ``outside`` change all but the set, then rows ``inside`` change the set.

    One after the other, the first rows never see the set away from its initialisation, and so do not lean on it.
    """
    order = torch.Generator().manual_seed(seed)
    model.train()
    for rows, masks in ((outside, complement(chosen)), (inside, chosen)):
        optimizer = RoutedAdamW(model, masks, steps)
        for _ in range(steps):
            picked = [rows[i] for i in torch.randint(len(rows), (BATCH,), generator=order).tolist()]
            (batch,) = TokenBatches(picked, BATCH, pad_id=0)
            del batch["source_row"]
            optimizer.step(model(**batch).loss)
    model.eval()
