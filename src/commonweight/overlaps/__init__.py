"""Overlap: how much two footprints coincide, overall and per layer.

The room is called ``overlaps`` because a package named like its function, ``commonweight.overlap``, would hide it.
"""

from commonweight.base.estimate import Estimate
from commonweight.overlaps.alignment import Alignment, alignment_of
from commonweight.overlaps.chance import chance_corrected, chance_jaccard
from commonweight.overlaps.compatible import Common, LeftOut, common_parameters
from commonweight.overlaps.levels import Levels
from commonweight.overlaps.measures.cosine import cosine_similarity, task_similarity
from commonweight.overlaps.measures.fisher_overlap import fisher_overlap
from commonweight.overlaps.measures.gram import parameter_gram
from commonweight.overlaps.measures.jaccard import jaccard_index
from commonweight.overlaps.over_seeds import SeedOverlap, overlap_over_seeds
from commonweight.overlaps.resampling.noise_ceiling import NoiseCeilings, noise_ceiling
from commonweight.overlaps.resampling.ratios import Null
from commonweight.overlaps.similarity.means import TaskSimilarity, every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.overlaps.table.table import OverlapTable, overlap

__all__ = [
    "Alignment",
    "Common",
    "Estimate",
    "LeftOut",
    "Levels",
    "NoiseCeilings",
    "Null",
    "OverlapTable",
    "SeedOverlap",
    "TaskSimilarity",
    "alignment_of",
    "chance_corrected",
    "chance_jaccard",
    "common_parameters",
    "cosine_similarity",
    "every_layer_similarity",
    "first_layer_similarity",
    "fisher_overlap",
    "jaccard_index",
    "noise_ceiling",
    "overlap",
    "overlap_over_seeds",
    "parameter_gram",
    "probed_similarity",
    "task_similarity",
]
