"""A fusion: checked as a whole, then computed one tensor at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import MeasurementError
from commonweight.fusion.compatible import check_masks, check_same, check_whole_numbers
from commonweight.fusion.formulas import average, fisher_average, task_arithmetic
from commonweight.fusion.tensors import is_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from commonweight.fusion.fishers import Fishers
    from commonweight.fusion.methods import Recipe
    from commonweight.fusion.tensors import Tensors

VARIANCE = "running_var"
"""Last part of the name of a batch norm's variance, which cannot be negative."""


@dataclass
class Fusion:
    """What is fused, and how; made by :func:`plan_fusion`, which checks it."""

    recipe: Recipe
    models: Sequence[Tensors]
    base: Tensors | None = None
    fishers: Fishers | None = None
    counters: Sequence[str] = ()
    """Single whole numbers that differ; the first model's are kept."""

    dead: dict[str, int] = field(default_factory=dict)
    """Fisher: by tensor computed so far, entries at the floor in every model, where the average is the plain one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the order of the first model."""
        return tuple(self.models[0].facts)

    @property
    def without_fisher(self) -> tuple[str, ...]:
        """Floating tensors that no Fisher covers (buffers, frozen parameters): they are averaged plainly."""
        if self.fishers is None:
            return ()
        facts = self.models[0].facts
        return tuple(key for key, fact in facts.items() if fact.is_floating and key not in self.fishers)

    def tensor(self, key: str) -> Tensor:
        """Compute one tensor of the fused model; at most two tensors of the models are in memory at a time."""
        facts = self.models[0].facts[key]
        if not facts.is_floating or (facts.is_buffer and self._is_equal_everywhere(key)):
            return self.models[0].read(key)
        fused = self._mixed(key).to(facts.dtype)
        if not is_finite(fused):
            raise MeasurementError(
                f"the fused {key} holds nan or infinity in {str(facts.dtype).removeprefix('torch.')}, so nothing was "
                "kept; use smaller weights or a smaller {scale}, or models in a wider type",
                scale=None,
            )
        if key.rpartition(".")[2] == VARIANCE and fused.numel() and float(fused.min()) < 0:
            raise MeasurementError(
                f"the fused {key} is a variance and came out negative ({float(fused.min()):g}); use weights of at "
                "least 0"
            )
        return fused

    def _mixed(self, key: str) -> Tensor:
        device = self.models[0].facts[key].device
        weights = self.recipe.weights
        if self.base is not None and self.recipe.scale is not None:
            base = self.base.finite(key).to(device)
            return task_arithmetic(base, self._each(key, device), weights, self.recipe.scale)
        if self.fishers is not None and self.recipe.floor is not None and key in self.fishers:
            fishers = self.fishers.of(key, self.models[0].facts[key])
            found = fisher_average(self._each(key, device), fishers, weights, self.recipe.floor)
            self.dead[key] = found.dead
            return found.values
        return average(self._each(key, device), weights)

    def _each(self, key: str, device: torch.device) -> Iterator[Tensor]:
        for model in self.models:
            yield model.finite(key).to(device)

    def _is_equal_everywhere(self, key: str) -> bool:
        first = self.models[0].read(key)
        others = [*self.models[1:], *([self.base] if self.base else [])]
        return all(torch.equal(first, model.read(key).to(first.device)) for model in others)


def plan_fusion(
    recipe: Recipe, models: Sequence[Tensors], base: Tensors | None = None, fishers: Fishers | None = None
) -> Fusion:
    """Check that models can be fused, weight by weight."""
    every = [*models, *([base] if base else [])]
    check_same(every)
    check_masks(every)
    return Fusion(recipe, models, base, fishers, check_whole_numbers(every))
