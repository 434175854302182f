r"""What masks share by chance, and the overlap beyond it.

Two masks that have nothing to do with each other still keep some weights in common, and more the denser they are. If
their scores start independently, the expected number is known: n d₁ d₂ of a layer's n weights. Scores that start from
the same draw agree in most bits before any training, and scores that were moved towards a prior task's agree with them
by construction; no formula covers that, so there is none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from commonweight.overlaps.measures.gram import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from commonweight.footprints.footprint import Footprint

    Array = NDArray[np.float64]

Relation = Literal["independent", "shared", "moved", "not stated"]


@dataclass(frozen=True)
class MaskFacts:
    """What must be known of masks, beside what they have in common, to say what chance gives."""

    sizes: Mapping[str, int]
    """Weights of each parameter."""

    starts: Mapping[str, str | None]
    """Per footprint the name of the draw its scores started from; None where it does not say."""

    moved: Mapping[str, Mapping[str, str]]
    """Per footprint, by prior task, the names of the draws its scores were moved towards."""

    flipped: Mapping[str, bool]
    """Whether each footprint holds the bits that differ from its start's mask, instead of the mask."""

    def relation(self, a: str, b: str) -> Relation:
        """Tell whether the scores of two masks started independently."""
        one, other = self.starts[a], self.starts[b]
        if one is None or other is None:
            return "not stated"
        if one == other:
            return "shared"
        every, others = {one, *self.moved[a].values()}, {other, *self.moved[b].values()}
        return "moved" if every & others else "independent"

    @property
    def independent(self) -> NDArray[np.bool_]:
        """Which pairs have independent initialisations, ``[n, n]``; no mask is independent of itself."""
        return np.array([[a != b and self.relation(a, b) == "independent" for b in self.starts] for a in self.starts])


def mask_facts(footprints: Mapping[str, Footprint], sizes: Mapping[str, int]) -> MaskFacts:
    """Read off footprints what chance needs."""
    starts = {name: footprint.metadata.get("score_initialisation") for name, footprint in footprints.items()}
    return MaskFacts(
        sizes,
        {name: None if start is None else str(start) for name, start in starts.items()},
        {name: dict(footprint.metadata.get("moved_towards", {})) for name, footprint in footprints.items()},
        {name: bool(footprint.metadata.get("flipped")) for name, footprint in footprints.items()},
    )


def chance_jaccard(grams: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    r"""Compute the Jaccard index that independent masks of the same densities have by chance.

    With :math:`K_{i}^l` of the :math:`n^l` weights of parameter l kept by mask i,

    .. math:: J_0 = \frac{\sum_l E^l_{ij}}{\sum_l K^l_i + K^l_j - E^l_{ij}}, \qquad E^l_{ij} = K^l_i K^l_j / n^l

    a ratio of summed expectations; for one parameter :math:`d_1 d_2 / (d_1 + d_2 - d_1 d_2)`.

    Args:
        grams: Gram matrices ``[n, n]`` of the masks, per parameter: the diagonal is what each keeps.
        sizes: Weights of each parameter.

    Returns:
        ``[n, n]`` in [0, 1]; nan where both masks are empty.

    Example:
        >>> half = np.array([[50.0, 20.0], [20.0, 50.0]])
        >>> round(chance_jaccard({"fc.weight": half}, {"fc.weight": 100})[0, 1].item(), 4)
        0.3333
    """
    kept = [np.diagonal(gram) for gram in grams.values()]
    both = sum(np.outer(each, each) / max(1, sizes[name]) for name, each in zip(grams, kept, strict=True))
    whole = np.asarray(sum(kept))
    union = whole[:, None] + whole[None, :] - both
    return np.asarray(both / np.where(union > 0, union, np.nan))


def chance_corrected(overlap: ArrayLike, chance: ArrayLike) -> Array:
    """Give the overlap beyond chance, ``(J - J₀) / (1 - J₀)``.

    The chance level may come from :func:`chance_jaccard`, or be measured: the overlap with a control task.

    Args:
        overlap: Overlaps, any shape.
        chance: Their chance levels, of the same shape.

    Returns:
        1 for full overlap, 0 at chance, negative below it; nan where chance leaves no room (1) or either is nan.

    Example:
        >>> chance_corrected([1.0, 1 / 3, 0.0], [1 / 3, 1 / 3, 1 / 3]).round(4).tolist()
        [1.0, 0.0, -0.5]
    """
    level = np.asarray(chance, dtype=np.float64)
    room = np.where(level < 1 - ROUNDING, 1 - level, np.nan)
    return np.asarray((np.asarray(overlap, dtype=np.float64) - level) / room)
