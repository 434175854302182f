"""Do the models come from a shared initialisation? Only then does weight k of one mean weight k of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import by_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.weight_sample import Sample

Reading = Literal["shared initialisation", "no shared initialisation", "unclear", "not measured"]

NEAR = 0.5

FAR = 0.8

SHOWN = 0.005
"""Below this two decimals would write 0.00."""

MOST_LISTED = 6
"""Pairs of models that a sentence names; of more it says how many there are."""

Pairs = dict[tuple[str, str], float]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How far apart the weights of the measured models are, pair by pair.

    Example:
        >>> found = Alignment(("a", "b"), np.array([[0.0, 0.1], [0.1, 0.0]]))
        >>> found.reading("a", "b")
        'shared initialisation'
        >>> print(found.sentence())
        The models come from a shared initialisation (relative weight distance at most 0.10).
    """

    names: tuple[str, ...]
    """Names of the footprints."""

    distance: NDArray[np.float64]
    """``[n, n]``: relative distance, 0 for identical weights, about 1 for unrelated ones; nan where not measured."""

    matrices: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Per weight matrix ``[2, n, n]``: the squared distance, and the sum of both squared sizes; 0 where not both
    sampled it, nan where weights are not finite. They add over matrices. Empty where only models were compared."""

    models: Mapping[str, str] = field(default_factory=dict)
    """Footprint -> name of its model, where several are of one; it lacks those that are told by their own names."""

    def within(self, parameters: Collection[str]) -> NDArray[np.float64]:
        """Give the distance over some weight matrices alone.

        Args:
            parameters: Their names; others, such as biases, are passed over.

        Returns:
            ``[n, n]``; nan where none of them was sampled in both models.
        """
        known = [terms for name, terms in self.matrices.items() if name in parameters]
        apart, size = sum(known, np.zeros((2, len(self.names), len(self.names))))
        return np.asarray(np.sqrt(apart / np.where(size > 0, size, np.nan)))

    def _farthest(self, parameters: Collection[str]) -> NDArray[np.float64]:
        """Give the distance in that of some weight matrices in which two models are farthest apart, as ``within``."""
        sampled = [name for name in parameters if name in self.matrices]
        farthest = np.full((len(self.names), len(self.names)), np.nan)
        for name in sampled:
            farthest = np.fmax(farthest, self.within([name]))
        return np.asarray(np.where(np.isnan(self.within(sampled)), np.nan, farthest))

    def reading(self, a: str, b: str, parameters: Collection[str] | None = None) -> Reading:
        """Say what the distance of two models means.

        Of a layer of a table ask :meth:`~commonweight.overlaps.table.table.OverlapTable.shared_initialisation`, which
        knows the layers and their parameters.

        Args:
            a: Name of a footprint.
            b: Name of another.
            parameters: Names of weights that are asked about, which read as the farthest matrix among them: a large one
                would hide a small one that was drawn anew. None for all weights together. A freshly drawn head has no
                shared initialisation with another one though the models that carry them have; a matrix that started at
                0 looks like that too. Weights none of which was sampled, such as those of a normalisation, are read
                with the whole.

        Returns:
            ``shared initialisation`` up to 0.5, ``no shared initialisation`` from 0.8, ``unclear`` between, ``not
            measured`` for nan.

        Raises:
            UsageError: If there is no footprint of that name, or ``parameters`` is a single string.
        """
        for name in (a, b):
            if name not in self.names:
                raise UsageError(f"no footprint {name!r} in this comparison; it has {', '.join(self.names)}")
        if isinstance(parameters, str):
            raise UsageError(
                f"expected a collection of parameter names, such as ['0.weight'], got the string {parameters!r}; for a "
                f"layer ask table.shared_initialisation({a!r}, {b!r}, {parameters!r})"
            )
        at = self.names.index(a), self.names.index(b)
        distance = math.nan if parameters is None else float(self._farthest(parameters)[at])
        return reading_of(float(self.distance[at]) if math.isnan(distance) else distance)

    def of(self, names: Sequence[str]) -> Alignment:
        """Take some of the footprints.

        Args:
            names: Which.

        Returns:
            Theirs alone.
        """
        places = [self.names.index(name) for name in names]
        chosen = np.ix_(places, places)
        return Alignment(
            tuple(names),
            self.distance[chosen],
            {name: np.stack([each[chosen] for each in terms]) for name, terms in self.matrices.items()},
            {name: model for name, model in self.models.items() if name in names},
        )

    def sentence(self, *, start: str | None = None) -> str:
        """Say in one sentence what holds for all pairs.

        Pairs of models are told, since distances are theirs; of many pairs the farthest.

        Args:
            start: A model that all others are known to come from: far from it is then not of another start. None if
                no such is known.

        Returns:
            The sentence; where models have no shared initialisation, or are far from it, it says that overlaps are not
            to be read as sharing.
        """
        pairs = {pair: self.reading(*pair) for pair in combinations(self.names, 2)}
        if set(pairs.values()) == {"shared initialisation"}:
            farthest = float(np.max(self.distance))
            if farthest == 0:
                return "All footprints are of the same weights."
            shown = "below 0.01" if farthest < SHOWN else f"at most {math.ceil(farthest * 100) / 100:.2f}"
            return f"The models come from a shared initialisation (relative weight distance {shown}){self._but_not()}."
        if set(pairs.values()) == {"not measured"}:
            return (
                "Whether the models come from a shared initialisation was not measured: the footprints hold no weight "
                "samples that can be compared, and without a shared initialisation overlaps are not to be read as "
                "sharing."
            )
        models = self._by_model()
        strange, doubtful = "no shared initialisation for", "a shared initialisation is unclear for"
        if start is not None:
            strange = f"training moved models far from the shared initialisation {start}, or from each other:"
            doubtful = f"training moved models quite far from the shared initialisation {start}, or from each other:"
        parts = []
        if found := _listed(models, "no shared initialisation"):
            parts.append(f"{strange} {found}, so their overlaps are not to be read as sharing")
        if found := _listed(models, "unclear"):
            parts.append(f"{doubtful} {found}")
        if found := _listed(models, "not measured"):
            parts.append(f"a shared initialisation was not measured for {found}")
        text = "; ".join(parts)
        return text[0].upper() + text[1:] + "."

    def strange_layers(self) -> dict[str, float]:
        """Find the layers that have no shared initialisation in some pair, such as heads that were drawn anew.

        Returns:
            The largest distance of two models in one of its weight matrices, by layer.
        """
        layers = by_layer(self.matrices)
        with np.errstate(invalid="ignore"):
            farthest = {layer: float(np.nanmax(self._farthest(each), initial=0.0)) for layer, each in layers.items()}
        return {layer: most for layer, most in farthest.items() if most >= FAR}

    def _but_not(self) -> str:
        strange = [f"{layer} ({most:.2f})" for layer, most in self.strange_layers().items()]
        rest = [f"{len(strange) - MOST_LISTED} more"] if len(strange) > MOST_LISTED else []
        return f", but not so {', '.join([*strange[:MOST_LISTED], *rest])}" if strange else ""

    def _by_model(self) -> Pairs:
        """Distances of pairs of models."""
        found: Pairs = {}
        for (i, a), (j, b) in combinations(enumerate(self.names), 2):
            one, other = self.models.get(a, a), self.models.get(b, b)
            if one != other:
                found.setdefault((one, other), float(self.distance[i, j]))
        return found


def reading_of(distance: float) -> Reading:
    """Say what a distance means."""
    if math.isnan(distance):
        return "not measured"
    if distance <= NEAR:
        return "shared initialisation"
    return "no shared initialisation" if distance >= FAR else "unclear"


def _listed(pairs: Pairs, reading: Reading) -> str:
    """Name the pairs with a reading; if they are many, the farthest of them and how many there are beside."""
    found = {pair: distance for pair, distance in pairs.items() if reading_of(distance) == reading}
    farthest = sorted(found, key=lambda pair: -found[pair])[:MOST_LISTED]
    shown = [
        f"{a} and {b}" + ("" if math.isnan(distance) else f" (relative distance {distance:.2f})")
        for (a, b), distance in found.items()
        if (a, b) in farthest
    ]
    rest = [f"and {len(found) - len(shown)} more pairs"] if len(found) > len(shown) else []
    return ", ".join([*shown, *rest])


def alignment_of(footprints: Mapping[str, Footprint]) -> Alignment:
    """Measure the relative distance of the models' weights, ``|w_a - w_b| / sqrt(|w_a|² + |w_b|²)``, pair by pair."""
    return alignment_of_samples({
        name: (footprint.weight_sample, footprint.metadata.get("weight_sample_scale", {}))
        for name, footprint in footprints.items()
    })


def alignment_of_samples(samples: Mapping[str, Sample]) -> Alignment:
    """Measure the relative distance of models by samples of their weights, as :func:`alignment_of` does."""
    names = tuple(samples)
    matrices: dict[str, NDArray[np.float64]] = {}
    for i, a in enumerate(names):
        for j, b in enumerate(names[: i + 1]):
            for matrix, terms in _terms(samples[a], samples[b]).items():
                found = matrices.setdefault(matrix, np.zeros((2, len(names), len(names))))
                found[:, i, j] = found[:, j, i] = terms
    return Alignment(names, Alignment(names, np.empty(0), matrices).within(matrices), matrices)


def _terms(a: Sample, b: Sample) -> dict[str, tuple[float, float]]:
    """Squared distance, and sum of both squared sizes, of every matrix that both sampled with equal length."""
    found = {}
    for name in a[0]:
        scale = float(a[1].get(name, 1.0))
        if name not in b[0] or scale != float(b[1].get(name, 1.0)):
            continue
        w_a, w_b = (held[name].detach().cpu().to(torch.float64).reshape(-1) for held, _ in (a, b))
        if len(w_a) == len(w_b):
            apart = scale * float((w_a - w_b).square().sum())
            found[name] = apart, scale * float(w_a.square().sum() + w_b.square().sum())
    return found


MOSTLY = 0.5
"""Layers without a shared initialisation that hold more than this share of a trace leave the whole without one."""


class Strange(NamedTuple):
    """Layers without a shared initialisation among several."""

    layers: tuple[str, ...]
    """Modules that own parameters."""

    share: float
    """The larger of the two footprints' shares of the trace, of that of all layers asked about."""


def strange_layers(alignment: Alignment, grams: Mapping[str, NDArray[np.float64]], a: str, b: str) -> Strange:
    """Find the layers of some parameters, given with their Gram matrices, without a shared initialisation."""
    owned = by_layer(grams)
    layers = [each for each in owned if alignment.reading(a, b, owned[each]) == "no shared initialisation"]
    shares = [0.0]
    for place in (alignment.names.index(a), alignment.names.index(b)):
        held = {owner: math.fsum(grams[each][place, place] for each in owned[owner]) for owner in owned}
        if (whole := math.fsum(held.values())) > 0:
            shares.append(math.fsum(held[owner] for owner in layers) / whole)
    return Strange(tuple(layers), max(shares))
