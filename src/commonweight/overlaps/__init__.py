"""Overlap: how much two footprints coincide, overall and per layer.

The room is called ``overlaps`` because a package named like its function, ``commonweight.overlap``, would hide it.
"""

from commonweight.overlaps.alignment import Alignment, alignment_of
from commonweight.overlaps.compatible import Common, LeftOut, common_parameters
from commonweight.overlaps.cosine import cosine_similarity, task_similarity
from commonweight.overlaps.fisher_overlap import fisher_overlap
from commonweight.overlaps.gram import parameter_gram
from commonweight.overlaps.jaccard import jaccard_index
from commonweight.overlaps.table import OverlapTable, overlap

__all__ = [
    "Alignment",
    "Common",
    "LeftOut",
    "OverlapTable",
    "alignment_of",
    "common_parameters",
    "cosine_similarity",
    "fisher_overlap",
    "jaccard_index",
    "overlap",
    "parameter_gram",
    "task_similarity",
]
