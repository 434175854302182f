"""Density, chance and corrected overlap of the masks of a table, at every level at which it gives overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.overlaps._named import Named
from commonweight.overlaps._ratio import frozen
from commonweight.overlaps.chance import chance_corrected, chance_jaccard
from commonweight.overlaps.levels import Levels, levels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from commonweight.overlaps.chance import MaskFacts

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MaskChance:
    """What the masks of a table keep, share by chance, and share beyond chance."""

    density: Levels
    """Fraction of the weights that each mask keeps, ``[n]`` in [0, 1]."""

    chance: Levels
    """Jaccard index of independent masks of these densities, ``[n, n]``; nan unless the pair's score starts are known
    to be independent: for others the closed form does not hold."""

    corrected: Levels
    """``(overlap - chance) / (1 - chance)``, ``[n, n]``; nan where chance is."""


def mask_chance(
    facts: MaskFacts, layers: Mapping[str, tuple[str, ...]], terms: Mapping[str, Array], overlaps: Levels
) -> MaskChance:
    """Compute all three.

    Args:
        facts: Sizes and score starts.
        layers: The parameters of each layer.
        terms: Per parameter the Gram matrix ``[n, n]``.
        overlaps: The raw overlaps.

    Returns:
        Density, chance and corrected overlap.
    """
    independent = facts.independent

    def chance(parameters: tuple[str, ...]) -> Array:
        level = chance_jaccard({name: terms[name] for name in parameters}, facts.sizes)
        return np.where(independent, level, np.nan)

    def density(parameters: tuple[str, ...]) -> Array:
        size = sum(facts.sizes[name] for name in parameters)
        kept = np.asarray(sum(np.diagonal(terms[name]) for name in parameters))
        return np.asarray(kept / (size or np.nan))

    densities, chances = (levels_of(of, layers, tuple(terms)) for of in (density, chance))
    corrected = Levels(
        Named("layer", _corrected(overlaps.by_layer, chances.by_layer)),
        Named("parameter", _corrected(overlaps.by_parameter, chances.by_parameter)),
        frozen(chance_corrected(overlaps.pooled, chances.pooled)),
    )
    return MaskChance(densities, chances, corrected)


def _corrected(overlaps: Mapping[str, Array], chances: Mapping[str, Array]) -> dict[str, Array]:
    return {name: frozen(chance_corrected(overlap, chances[name])) for name, overlap in overlaps.items()}
