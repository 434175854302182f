"""Which weights hold what two networks, or two tasks in one network, have in common?

A footprint says where a network keeps one piece of knowledge; an overlap says how much two footprints coincide. Public
names are imported when they are first used, so that ``import commonweight`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commonweight.data.streams.opening import open_images
    from commonweight.data.streams.stream import task_stream
    from commonweight.decision.alphas import Alphas, alphas_for, transfer_alphas
    from commonweight.decision.ewc import ewc_penalty
    from commonweight.decision.fusing import fuse
    from commonweight.decision.layer_verdicts import layers_verdict
    from commonweight.decision.table_verdicts import overlap_verdict, pairs_verdict
    from commonweight.decision.task_inference import infer_task
    from commonweight.decision.verdict import Verdict, contrast_verdict, null_verdict
    from commonweight.errors import CommonweightError, IntegrityError, MeasurementError, NotComparableError, UsageError
    from commonweight.footprint.activity import activity_footprint
    from commonweight.footprint.fisher import fisher, verify
    from commonweight.footprint.folds import FoldSorted
    from commonweight.footprint.footprint import Footprint
    from commonweight.footprint.likelihood import CustomLoss
    from commonweight.footprint.routes import Verification
    from commonweight.footprint.supermask import supermask_footprint
    from commonweight.nn.masks.network import SupermaskNetwork
    from commonweight.nn.masks.rules import Threshold, TopK
    from commonweight.overlaps.cosine import cosine_similarity, task_similarity
    from commonweight.overlaps.estimate import Estimate
    from commonweight.overlaps.fisher_overlap import fisher_overlap
    from commonweight.overlaps.jaccard import jaccard_index
    from commonweight.overlaps.over_seeds import SeedOverlap, overlap_over_seeds
    from commonweight.overlaps.probed import probed_similarity
    from commonweight.overlaps.similarity import TaskSimilarity, every_layer_similarity, first_layer_similarity
    from commonweight.overlaps.table import OverlapTable, overlap

__version__ = "0.1.0"

_HOME = {
    "Alphas": "decision.alphas",
    "CommonweightError": "errors",
    "CustomLoss": "footprint.likelihood",
    "Estimate": "overlaps.estimate",
    "FoldSorted": "footprint.folds",
    "Footprint": "footprint.footprint",
    "IntegrityError": "errors",
    "MeasurementError": "errors",
    "NotComparableError": "errors",
    "OverlapTable": "overlaps.table",
    "SeedOverlap": "overlaps.over_seeds",
    "SupermaskNetwork": "nn.masks.network",
    "TaskSimilarity": "overlaps.similarity",
    "Threshold": "nn.masks.rules",
    "TopK": "nn.masks.rules",
    "UsageError": "errors",
    "Verdict": "decision.verdict",
    "Verification": "footprint.routes",
    "activity_footprint": "footprint.activity",
    "alphas_for": "decision.alphas",
    "contrast_verdict": "decision.verdict",
    "cosine_similarity": "overlaps.cosine",
    "every_layer_similarity": "overlaps.similarity",
    "ewc_penalty": "decision.ewc",
    "first_layer_similarity": "overlaps.similarity",
    "fisher": "footprint.fisher",
    "fisher_overlap": "overlaps.fisher_overlap",
    "fuse": "decision.fusing",
    "infer_task": "decision.task_inference",
    "jaccard_index": "overlaps.jaccard",
    "layers_verdict": "decision.layer_verdicts",
    "null_verdict": "decision.verdict",
    "open_images": "data.streams.opening",
    "overlap": "overlaps.table",
    "overlap_over_seeds": "overlaps.over_seeds",
    "overlap_verdict": "decision.table_verdicts",
    "pairs_verdict": "decision.table_verdicts",
    "probed_similarity": "overlaps.probed",
    "supermask_footprint": "footprint.supermask",
    "task_similarity": "overlaps.cosine",
    "task_stream": "data.streams.stream",
    "transfer_alphas": "decision.alphas",
    "verify": "footprint.fisher",
}

__all__ = [
    "Alphas",
    "CommonweightError",
    "CustomLoss",
    "Estimate",
    "FoldSorted",
    "Footprint",
    "IntegrityError",
    "MeasurementError",
    "NotComparableError",
    "OverlapTable",
    "SeedOverlap",
    "SupermaskNetwork",
    "TaskSimilarity",
    "Threshold",
    "TopK",
    "UsageError",
    "Verdict",
    "Verification",
    "activity_footprint",
    "alphas_for",
    "contrast_verdict",
    "cosine_similarity",
    "every_layer_similarity",
    "ewc_penalty",
    "first_layer_similarity",
    "fisher",
    "fisher_overlap",
    "fuse",
    "infer_task",
    "jaccard_index",
    "layers_verdict",
    "null_verdict",
    "open_images",
    "overlap",
    "overlap_over_seeds",
    "overlap_verdict",
    "pairs_verdict",
    "probed_similarity",
    "supermask_footprint",
    "task_similarity",
    "task_stream",
    "transfer_alphas",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"commonweight.{_HOME[name]}"), name)
    raise AttributeError(f"module 'commonweight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
