"""Layers that may be in each other's way: one at a time gets the weights of a parent back, within a merge."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from commonweight.base.seeds import keyed
from commonweight.interventions.sets import drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from commonweight.studies.localise.cells import Scored
    from commonweight.studies.merge_check.parents import Parents, Weights

MOST_CANDIDATES = 5
LEAST_GAIN = 1e-5
"""Nats per row on the choosing half; less is rounding."""

OUTSIDE = 3
"""Keys the draws apart from those of other null sets."""


class Restored(NamedTuple):
    """A layer, and the parent whose weights it gets back."""

    layer: str
    parent: str

    @property
    def key(self) -> str:
        """Its name in a file."""
        return f"{self.layer}/{self.parent}"

    def draw_key(self, draw: int) -> str:
        """Name one of its random sets in a file."""
        return f"{self.key}/{draw}"


def layers_of(names: Iterable[str], depth: int) -> dict[str, list[str]]:
    """Sort parameters by the module that owns them, at most so many levels down."""
    found: dict[str, list[str]] = {}
    for name in names:
        owner = name.rpartition(".")[0] or name
        found.setdefault(".".join(owner.split(".")[:depth]), []).append(name)
    return found


def mean_change(scored: Scored, key: str, other: Scored, other_key: str) -> float:
    """Tell how much higher one network's mean log-likelihood is than another's, on average over the data sets."""
    return float(
        np.mean([
            float(np.mean(cells[key].log_likelihood - other.scores[data][other_key].log_likelihood))
            for data, cells in scored.scores.items()
        ])
    )


def candidates(every: Sequence[Restored], scored: Scored, merge: Scored, merge_key: str) -> list[Restored]:
    """Choose the layers that gain most when restored, each to the parent that suits it best."""
    gains = {one: mean_change(scored, one.key, merge, merge_key) for one in every}
    best: dict[str, Restored] = {}
    for one in sorted(every, key=lambda one: (-gains[one], one)):
        best.setdefault(one.layer, one)
    return [one for one in best.values() if gains[one] > LEAST_GAIN][:MOST_CANDIDATES]


def restored(parents: Parents, merged: Weights, names: Iterable[str], parent: str) -> Weights:
    """Give a merge in which some parameters are those of a parent."""
    return {**merged, **{name: parents.weights(parent, name).clone() for name in names}}


def outside_counts(sizes: Mapping[str, int], layer: Iterable[str]) -> dict[str, int]:
    """Spread as many weights as a layer has over the other parameters; nothing where these have too few."""
    within = set(layer)
    count = sum(sizes[name] for name in within)
    others = {name: size for name, size in sizes.items() if name not in within}
    total = sum(others.values())
    if count > total:
        return {}
    ends = [count * end // total for end in accumulate(others.values())]
    return {name: end - begin for name, begin, end in zip(others, [0, *ends], ends, strict=False)}


def restored_outside(
    parents: Parents, merged: Weights, counts: Mapping[str, int], parent: str, seed: int, draw: int
) -> Weights:
    """Give a merge in which random weights outside a layer are those of a parent."""
    found = dict(merged)
    for number, (name, count) in enumerate(counts.items()):
        weights = merged[name]
        every = torch.ones(weights.numel(), dtype=torch.bool)
        mask: Tensor = drawn(every, count, keyed(seed, OUTSIDE, number, draw)).reshape(weights.shape)
        found[name] = torch.where(mask.to(weights.device), parents.weights(parent, name), weights)
    return found
