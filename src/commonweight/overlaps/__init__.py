"""Overlap: how much two footprints coincide, overall and per layer.

The room is called ``overlaps`` because a package named like its function, ``commonweight.overlap``, would hide it.
"""

from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.chance import chance_corrected, chance_jaccard
from commonweight.overlaps.compatible import LeftOut
from commonweight.overlaps.over_seeds import SeedOverlap, overlap_over_seeds
from commonweight.overlaps.resampling.noise_ceiling import NoiseCeilings, noise_ceiling
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.overlaps.table.numbers import Levels, Null, Row

__all__ = [
    "Alignment",
    "LeftOut",
    "Levels",
    "NoiseCeilings",
    "Null",
    "Row",
    "SeedOverlap",
    "TaskSimilarity",
    "chance_corrected",
    "chance_jaccard",
    "noise_ceiling",
    "overlap_over_seeds",
]
