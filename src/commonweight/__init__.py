"""Which weights hold what two networks, or two tasks in one network, have in common?

A footprint says where a network keeps one piece of knowledge; an overlap says how much two footprints coincide. Public
names are imported when they are first used, so that ``import commonweight`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commonweight.decision.fusing import fuse
    from commonweight.errors import (
        CommonweightError,
        IntegrityError,
        MeasurementError,
        NotComparableError,
        UsageError,
    )
    from commonweight.footprint.fisher import fisher, verify
    from commonweight.footprint.folds import FoldSorted
    from commonweight.footprint.footprint import Footprint
    from commonweight.footprint.likelihood import CustomLoss
    from commonweight.footprint.routes import Verification
    from commonweight.overlaps.cosine import cosine_similarity, task_similarity
    from commonweight.overlaps.fisher_overlap import fisher_overlap
    from commonweight.overlaps.jaccard import jaccard_index
    from commonweight.overlaps.table import OverlapTable, overlap

__version__ = "0.1.0"

_HOME = {
    "CommonweightError": "errors",
    "CustomLoss": "footprint.likelihood",
    "FoldSorted": "footprint.folds",
    "Footprint": "footprint.footprint",
    "IntegrityError": "errors",
    "MeasurementError": "errors",
    "NotComparableError": "errors",
    "OverlapTable": "overlaps.table",
    "UsageError": "errors",
    "Verification": "footprint.routes",
    "cosine_similarity": "overlaps.cosine",
    "fisher": "footprint.fisher",
    "fisher_overlap": "overlaps.fisher_overlap",
    "fuse": "decision.fusing",
    "jaccard_index": "overlaps.jaccard",
    "overlap": "overlaps.table",
    "task_similarity": "overlaps.cosine",
    "verify": "footprint.fisher",
}

__all__ = [
    "CommonweightError",
    "CustomLoss",
    "FoldSorted",
    "Footprint",
    "IntegrityError",
    "MeasurementError",
    "NotComparableError",
    "OverlapTable",
    "UsageError",
    "Verification",
    "cosine_similarity",
    "fisher",
    "fisher_overlap",
    "fuse",
    "jaccard_index",
    "overlap",
    "task_similarity",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"commonweight.{_HOME[name]}"), name)
    raise AttributeError(f"module 'commonweight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
