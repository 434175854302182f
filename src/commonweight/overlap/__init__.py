"""Overlap: how much two footprints coincide, overall and per layer.

The room is also the function: ``commonweight.overlap({"a": f_a, "b": f_b})`` is :func:`overlap`, whether or not this
package was imported before, although a submodule of that name exists.
"""

import sys
from types import ModuleType

from commonweight.overlap.alignment import Alignment, alignment_of
from commonweight.overlap.compatible import Common, LeftOut, common_parameters
from commonweight.overlap.cosine import cosine_similarity, task_similarity
from commonweight.overlap.fisher_overlap import fisher_overlap
from commonweight.overlap.gram import parameter_gram
from commonweight.overlap.jaccard import jaccard_index
from commonweight.overlap.table import OverlapTable, overlap

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


class _Callable(ModuleType):
    """A module that is called like its main function."""

    __call__ = staticmethod(overlap)


sys.modules[__name__].__class__ = _Callable
