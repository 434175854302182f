"""Fishers that several processes measure together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import distributed, nn

import commonweight
from commonweight.base import team

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 13


class Lookup(nn.Module):
    """A model of which one table is read by the last row alone."""

    def __init__(self) -> None:
        super().__init__()
        self.common, self.rare, self.head = nn.Embedding(5, 4), nn.Embedding(2, 4), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        read = self.common(ids)
        if (ids == 4).any():
            read = read + self.rare((ids == 4).long()) * (ids == 4)[..., None]
        return self.head(read.mean(1).tanh())


def cases():
    """Name -> model, batches and what else is asked."""
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, 4), torch.randint(3, (ROWS,))
    mlp = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3))
    pairs = [(x[i : i + 3], y[i : i + 3]) for i in range(0, ROWS, 3)]
    order = torch.randperm(ROWS)
    mappings = [{"values": x[rows], "labels": y[rows], "source_row": rows} for rows in order.split(2)]
    ids = torch.randint(4, (ROWS, 5))
    ids[-1, 0] = 4
    of_ids = [(ids[i : i + 2], y[i : i + 2]) for i in range(0, ROWS, 2)]
    yield "uneven", (mlp, pairs, {})
    yield "one batch", (mlp, [(x, y)], {})
    yield "exact", (mlp, pairs, {"fisher_type": "exact"})
    yield "drawn", (mlp, pairs, {"fisher_type": "mc", "samples": 2, "seed": 3})
    yield "folds", (nn.Sequential(*mlp), mappings, {"folds": 4, "loss": "classification"})
    yield "wide", (nn.Linear(50, 2), [(torch.randn(ROWS, 50), y % 2) for _ in range(2)], {"folds": 2})
    yield "dormant", (Lookup(), of_ids, {})


class Named(nn.Module):
    """A module that takes ``values``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.inner(values)


def measured(place: Path):
    """Measure every case."""
    found = {}
    for name, (model, batches, asked) in cases():
        model = Named(model) if isinstance(batches[0], dict) else model
        found[name] = commonweight.fisher(model, batches, **asked)
    name = "folds"
    model, batches, asked = dict(cases())[name]
    found["in a folder"] = commonweight.fisher(Named(model), batches, **asked, folder=place / "written")
    return found


def plain(footprint: commonweight.Footprint):
    """Everything of a footprint that can be saved and compared."""
    return {
        "tensors": dict(footprint.items()),
        "folds": [dict(fold.tensors.items()) for fold in footprint.folds],
        "counts": [footprint.count, *(fold.count for fold in footprint.folds)],
        "rows": {name: tensor.sort().values for name, tensor in footprint.row_digests.items()},
        "source_rows": {name: tensor.sort().values for name, tensor in footprint.source_rows.items()},
        "spread": {name: (each.total, each.squares) for name, each in footprint.spread.items()},
        "agreement": footprint.metadata["agreement"],
        "generic": sorted(footprint.metadata["generic"]),
        "unused": footprint.metadata["unused"],
    }


def measure_in_group(folder: Path):
    """Measure every case as a process of a group, and leave what it found in a folder."""
    distributed.init_process_group("gloo")
    if distributed.get_world_size() == 2:
        team.BUNDLE = 100  # several messages, of one tensor and of more
    found = {name: plain(footprint) for name, footprint in measured(folder).items()}
    torch.save(found, folder / f"found-{distributed.get_rank()}.pt")
