"""Do the models come from a common start? Only then does weight k of one mean weight k of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from commonweight.footprint.footprint import Footprint

Reading = Literal["common start", "no common start", "unclear", "not measured"]
NEAR = 0.5
FAR = 0.8
SHOWN = 0.005
"""Below this two decimals would write 0.00."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How far apart the weights of the measured models are, pair by pair.

    Example:
        >>> found = Alignment(("a", "b"), np.array([[0.0, 0.1], [0.1, 0.0]]))
        >>> found.reading("a", "b")
        'common start'
        >>> print(found.sentence())
        The models come from a common start (relative weight distance at most 0.10).
    """

    names: tuple[str, ...]
    """Names of the footprints."""

    distance: NDArray[np.float64]
    """``[n, n]``: relative distance, 0 for identical weights, about 1 for unrelated ones; nan where not measured."""

    def reading(self, a: str, b: str) -> Reading:
        """Say what the distance of two models means.

        Args:
            a: Name of a footprint.
            b: Name of another.

        Returns:
            ``common start`` up to 0.5, ``no common start`` from 0.8, ``unclear`` between, ``not measured`` for nan.

        Raises:
            UsageError: If there is no footprint of that name.
        """
        for name in (a, b):
            if name not in self.names:
                raise UsageError(f"no footprint {name!r} in this comparison; it has {', '.join(self.names)}")
        distance = float(self.distance[self.names.index(a), self.names.index(b)])
        if math.isnan(distance):
            return "not measured"
        if distance <= NEAR:
            return "common start"
        return "no common start" if distance >= FAR else "unclear"

    def sentence(self) -> str:
        """Say in one sentence what holds for all pairs.

        Returns:
            The sentence; where models have no common start it says that overlaps are not to be read as sharing.
        """
        pairs = {pair: self.reading(*pair) for pair in combinations(self.names, 2)}
        if set(pairs.values()) == {"common start"}:
            farthest = float(np.max(self.distance))
            if farthest == 0:
                return "All footprints are of the same weights."
            shown = "below 0.01" if farthest < SHOWN else f"at most {math.ceil(farthest * 100) / 100:.2f}"
            return f"The models come from a common start (relative weight distance {shown})."
        if set(pairs.values()) == {"not measured"}:
            return (
                "Whether the models come from a common start was not measured: the footprints hold no weight samples "
                "that can be compared, and without a common start overlaps are not to be read as sharing."
            )
        parts = []
        if strangers := self._listed(pairs, "no common start"):
            parts.append(f"no common start for {strangers}, so their overlaps are not to be read as sharing")
        if doubtful := self._listed(pairs, "unclear"):
            parts.append(f"a common start is unclear for {doubtful}")
        if unmeasured := self._listed(pairs, "not measured"):
            parts.append(f"a common start was not measured for {unmeasured}")
        text = "; ".join(parts)
        return text[0].upper() + text[1:] + "."

    def _listed(self, pairs: Mapping[tuple[str, str], Reading], reading: Reading) -> str:
        shown = []
        for (a, b), found in pairs.items():
            if found == reading:
                distance = self.distance[self.names.index(a), self.names.index(b)]
                shown.append(f"{a} and {b}" + ("" if math.isnan(distance) else f" (relative distance {distance:.2f})"))
        return ", ".join(shown)


def alignment_of(footprints: Mapping[str, Footprint]) -> Alignment:
    r"""Measure the relative distance of the models' weights, pair by pair.

    .. math:: r = \frac{\lVert w_a - w_b \rVert}{\sqrt{\lVert w_a \rVert^2 + \lVert w_b \rVert^2}}

    over the weight matrices that both footprints sampled, with equal length. ``metadata["weight_sample_scale"]``
    (name to matrix size / sample size; 1 where absent) lets each sample stand for its whole matrix.

    Args:
        footprints: The footprints by name, with or without ``weight_sample``.

    Returns:
        The distances: 0 for identical weights, 1 for orthogonal ones, at most sqrt(2); nan where two footprints
        sampled no matrix in common, or all sampled weights are zero.

    Example:
        >>> from torch import tensor
        >>> from commonweight.footprint.footprint import Footprint
        >>> f = {"w": tensor([1.0])}
        >>> a = Footprint("fisher", f, count=1, weight_sample={"w": tensor([3.0, 0.0])})
        >>> b = Footprint("fisher", f, count=1, weight_sample={"w": tensor([0.0, 4.0])})
        >>> alignment_of({"a": a, "b": b}).distance[0, 1].item()
        1.0
    """
    names = tuple(footprints)
    distance = np.full((len(names), len(names)), np.nan)
    for i, a in enumerate(names):
        for j, b in enumerate(names[: i + 1]):
            distance[i, j] = distance[j, i] = _relative_distance(footprints[a], footprints[b])
    return Alignment(names, distance)


def _relative_distance(a: Footprint, b: Footprint) -> float:
    apart = size = 0.0
    for name in a.weight_sample:
        if name not in b.weight_sample or _scale(a, name) != _scale(b, name):
            continue
        w_a, w_b = (footprint.weight_sample[name].detach().cpu().to(torch.float64).reshape(-1) for footprint in (a, b))
        if len(w_a) == len(w_b):
            apart += _scale(a, name) * float((w_a - w_b).square().sum())
            size += _scale(a, name) * float(w_a.square().sum() + w_b.square().sum())
    return math.sqrt(apart / size) if size > 0 else math.nan


def _scale(footprint: Footprint, name: str) -> float:
    return float(footprint.metadata.get("weight_sample_scale", {}).get(name, 1.0))
