"""The measure that fits each kind of footprint."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from commonweight.overlaps.measures.gram import cosine_ratio
from commonweight.overlaps.measures.jaccard import from_gram as jaccard_from_gram

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Kind


class Measure(NamedTuple):
    """A measure, in code and in words."""

    name: str
    """Name of its plain function."""

    words: str
    """Its name in a heading."""

    share: str
    """What a layer's share of ``G_ii`` is a share of, in a column head."""

    from_gram: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """From a Gram matrix ``[n, n]`` to all overlaps ``[n, n]``."""


MEASURES: dict[Kind, Measure] = {
    "fisher": Measure("fisher_overlap", "Fisher overlap", "trace share", cosine_ratio),
    "saliency": Measure("fisher_overlap", "Fisher overlap of saliencies", "share of saliency", cosine_ratio),
    "change": Measure("cosine_similarity", "Cosine similarity of changes", "share of squared change", cosine_ratio),
    "adam_v": Measure("fisher_overlap", "Overlap of Adam's second moments", "share of second moment", cosine_ratio),
    "supermask": Measure("jaccard_index", "Jaccard index", "share of kept weights", jaccard_from_gram),
    "activity": Measure("cosine_similarity", "Cosine similarity", "share of squared norm", cosine_ratio),
}
