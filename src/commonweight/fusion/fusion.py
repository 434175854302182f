"""A fusion: checked as a whole, then computed one tensor at a time; and what the user should hear of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.errors import MeasurementError
from commonweight.base.names import some
from commonweight.fusion.compatible import check_masks, check_same, check_whole_numbers
from commonweight.fusion.methods.average import Average
from commonweight.fusion.methods.method import Entries
from commonweight.fusion.tensors import are_equal, is_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from commonweight.fusion.fishers import Fishers
    from commonweight.fusion.methods.method import Method
    from commonweight.fusion.tensors import Tensors
    from commonweight.overlaps.alignment import Alignment

VARIANCE = "running_var"
"""Last part of the name of a batch norm's variance, which cannot be negative."""


@dataclass(frozen=True)
class Fusion:
    """What is fused, and how; made by :func:`plan_fusion`, which checks it."""

    method: Method
    weights: tuple[float, ...]
    models: Sequence[Tensors]
    base: Tensors | None = None
    fishers: Fishers | None = None
    counters: Sequence[str] = ()
    """Single whole numbers that differ; the first model's are kept."""

    @property
    def _all(self) -> Sequence[Tensors]:
        return [*self.models, *([self.base] if self.base else [])]

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
        if not facts.is_floating or (facts.is_buffer and are_equal(self._all, key)):
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
        facts = self.models[0].facts[key]
        models = (model.finite(key).to(facts.device) for model in self.models)
        if self.fishers is not None and key not in self.fishers:
            return Average().tensor(Entries(models, self.weights))
        base = None if self.base is None else self.base.finite(key).to(facts.device)
        fishers = () if self.fishers is None else self.fishers.of(key, facts)
        return self.method.tensor(Entries(models, self.weights, base, fishers))


def plan_fusion(
    method: Method,
    weights: tuple[float, ...],
    models: Sequence[Tensors],
    base: Tensors | None = None,
    fishers: Fishers | None = None,
) -> Fusion:
    """Check that models can be fused, weight by weight."""
    every = [*models, *([base] if base else [])]
    check_same(every)
    check_masks(every)
    return Fusion(method, weights, models, base, fishers, check_whole_numbers(every))


def notes_on(fusion: Fusion) -> list[str]:
    """Collect what the user should hear of a fusion unasked."""
    notes = [] if fusion.fishers is None else fusion.fishers.beware()
    if fusion.counters:
        notes.append(f"Counts that differ are those of the first model: {some(fusion.counters)}.")
    if fusion.without_fisher:
        notes.append(f"No Fisher covers these, so their average is the plain one: {some(fusion.without_fisher)}.")
    if any(key.endswith("running_mean") for key in fusion.names) and len(fusion.models) > 1:
        notes.append(
            "Running statistics of normalisation layers are averaged too. To be exact, measure them again: run the "
            "fused model over data in training mode."
        )
    return notes


def on_initialisation(found: Alignment) -> str:
    """Say what the distances of models mean for a fusion."""
    readings = {pair: found.reading(*pair) for pair in combinations(found.names, 2)}
    if not readings:
        return "One model: there is no start to compare."
    if strangers := [pair for pair, reading in readings.items() if reading == "no shared initialisation"]:
        return (
            f"No shared initialisation for {_listed(found, strangers)}: their weights do not correspond, and a fusion "
            "of them is expected to know little of what either knew."
        )
    if unmeasured := [pair for pair, reading in readings.items() if reading == "not measured"]:
        return (
            f"Whether there is a shared initialisation was not measured for {_listed(found, unmeasured)}: no weight "
            "matrices."
        )
    if doubtful := [pair for pair, reading in readings.items() if reading == "unclear"]:
        return f"A shared initialisation is unclear for {_listed(found, doubtful)}: try the fusion before you trust it."
    if not found.distance.any():
        return "The models are equal, as far as a sample of their weights tells."
    return found.sentence()


def is_worrying(found: Alignment) -> bool:
    """Tell whether two models, or one of their layers, have no shared initialisation, or an unclear one."""
    readings = {found.reading(*pair) for pair in combinations(found.names, 2)}
    return not readings <= {"shared initialisation", "not measured"} or bool(found.strange_layers())


def _listed(found: Alignment, pairs: Sequence[tuple[str, str]]) -> str:
    shown = []
    for a, b in pairs:
        distance = float(found.distance[found.names.index(a), found.names.index(b)])
        apart = "" if math.isnan(distance) else f" (relative weight distance {distance:.2f})"
        shown.append(f"{a} and {b}{apart}")
    return ", ".join(shown)
