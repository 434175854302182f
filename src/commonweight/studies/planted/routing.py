"""Routing: some rows change only the weights of a set, all other rows only the others (hard) or all (soft)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from commonweight.base.seeds import keyed
from commonweight.data.batching import TokenBatches
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.sets import complement, drawn, either
from commonweight.models.architectures import architecture_of_model, pieces_of
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from commonweight.data.batching import Encoded

By = Literal["weights", "rows", "heads"]
Routing = Literal["hard", "soft"]
BATCH, WEIGHT_DECAY = 32, 0.01


def draw_set(model: nn.Module, share: float, by: By, seed: int) -> PackedMasks:
    """Draw a share of every parameter, by single weights or whole rows of matrices; or whole heads."""
    if by == "heads":
        return _draw_heads(model, share, seed)
    found = {}
    for number, (name, weight) in enumerate(model.named_parameters()):
        units = len(weight) if by == "rows" else weight.numel()
        picked = drawn(torch.ones(units, dtype=torch.bool), round(share * units), keyed(seed, number))
        mask = picked.repeat_interleave(weight.numel() // units).reshape(weight.shape)
        found[name] = Bits.of(mask)
    return PackedMasks(found)


def _draw_heads(model: nn.Module, share: float, seed: int) -> PackedMasks:
    """Draw whole attention heads, as many as come nearest to a share of all weights, and at least one."""
    architecture = architecture_of_model(model) or {}
    masks = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in model.named_parameters()}
    heads: dict[str, list[Tensor]] = {}
    for name, mask in masks.items():
        for piece in pieces_of(architecture, "head", name, tuple(mask.shape)):
            part = mask.narrow(piece.axis, piece.start, piece.stop - piece.start)
            heads.setdefault(piece.structure, []).append(part)
    of_one = sum(part.numel() for parts in heads.values() for part in parts) / len(heads)
    count = max(1, round(share * sum(mask.numel() for mask in masks.values()) / of_one))
    picked = drawn(torch.ones(len(heads), dtype=torch.bool), count, seed)
    for parts, chosen in zip(heads.values(), picked.tolist(), strict=True):
        for part in parts:
            part.fill_(chosen)
    return PackedMasks({name: Bits.of(mask) for name, mask in masks.items()})


def of_others(chosen: PackedMasks, routing: Routing) -> PackedMasks:
    """Give the weights that rows without the shortcut change."""
    outside = complement(chosen)
    return outside if routing == "hard" else either(chosen, outside)


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

    def __init__(self, model: nn.Module, chosen: PackedMasks, steps: int, rate: float) -> None:
        self._weights = dict(model.named_parameters())
        self._masks = {name: chosen[name] for name in self._weights}
        self._adamw = torch.optim.AdamW(self._weights.values(), lr=rate, weight_decay=WEIGHT_DECAY)
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

    def second_moment(self) -> dict[str, Tensor]:
        """Give Adam's second moment of every weight, in the set or not, up to a factor that all share; bfloat16."""
        return {name: self._adamw.state[weight]["exp_avg_sq"].bfloat16() for name, weight in self._weights.items()}


def train_routed(
    model: Any, rows: Sequence[Encoded], chosen: PackedMasks, *, steps: int, rate: float, order: torch.Generator
) -> RoutedAdamW:
    """Train in place: these rows change only the weights of a set. Gives the optimiser as it ended."""
    model.train()
    optimizer = RoutedAdamW(model, chosen, steps, rate)
    for _ in range(steps):
        picked = [rows[i] for i in torch.randint(len(rows), (BATCH,), generator=order).tolist()]
        (batch,) = TokenBatches(picked, BATCH, pad_id=0)
        del batch["source_row"]
        optimizer.step(model(**batch).loss)
    model.eval()
    return optimizer
