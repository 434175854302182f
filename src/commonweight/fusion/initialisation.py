"""Do the models share an initialisation? Without one, weight k of one has nothing to do with weight k of another."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.footprints.footprint import Footprint
from commonweight.footprints.weight_sample import weight_sample
from commonweight.overlaps.alignment import Alignment, alignment_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from commonweight.fusion.tensors import Tensors

Sample = tuple[dict[str, "Tensor"], dict[str, float]]


def sample_of(model: Tensors) -> Sample:
    """Take a fixed sample of every weight matrix, reading one at a time."""
    sample: dict[str, Tensor] = {}
    scale: dict[str, float] = {}
    for key, facts in model.facts.items():
        if facts.is_floating and len(facts.shape) > 1 and not facts.is_buffer:
            held, sizes = weight_sample([(key, model.finite(key))])
            sample |= held
            scale |= sizes
    return sample, scale


def shared_initialisation(names: Sequence[str], samples: Sequence[Sample]) -> Alignment:
    """Measure how far apart the models' weights are, relative to their norms, as overlaps do."""
    held = {
        name: Footprint("fisher", sample, 0, {"weight_sample_scale": scale}, weight_sample=sample)
        for name, (sample, scale) in zip(names, samples, strict=True)
        if sample
    }
    if len(held) < len(names):
        return Alignment(tuple(names), np.full((len(names), len(names)), np.nan))
    return alignment_of(held)


def in_words(found: Alignment) -> str:
    """Say what the distances mean for a fusion.

    Args:
        found: The distances.

    Returns:
        One sentence.

    Example:
        >>> print(in_words(Alignment(("a", "b"), np.array([[0.0, 1.0], [1.0, 0.0]]))))
        No shared initialisation for a and b (relative weight distance 1.00): their weights do not correspond, and a
        fusion of them is expected to know little of what either knew.
    """
    readings = {pair: found.reading(*pair) for pair in combinations(found.names, 2)}
    if not readings:
        return "One model: there is no start to compare."
    if strangers := [pair for pair, reading in readings.items() if reading == "no shared initialisation"]:
        return (
            f"No shared initialisation for {_listed(found, strangers)}: their weights do not correspond, and a "
            "fusion of them "
            "is expected to know little of what either knew."
        )
    if unmeasured := [pair for pair, reading in readings.items() if reading == "not measured"]:
        return (
            f"Whether there is a shared initialisation was not measured for {_listed(found, unmeasured)}: no "
            "weight matrices."
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
