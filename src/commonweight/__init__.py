"""Which weights hold what two networks, or two tasks in one network, have in common?

A footprint says where a network keeps one piece of knowledge; an overlap says how much two footprints coincide. Public
names are imported when they are first used, so that ``import commonweight`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from commonweight.base.version import __version__ as __version__

if TYPE_CHECKING:
    from commonweight.base.errors import (
        CommonweightError,
        IntegrityError,
        MeasurementError,
        NotComparableError,
        UsageError,
    )
    from commonweight.base.estimate import Estimate
    from commonweight.data.images.open import open_images
    from commonweight.data.images.stream import task_stream
    from commonweight.diagonal_fisher.likelihood import CustomLoss
    from commonweight.diagonal_fisher.measure import fisher, verify
    from commonweight.diagonal_fisher.verification import Verification
    from commonweight.footprints.folds import FoldSorted
    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.of_masks import activity_footprint, supermask_footprint
    from commonweight.fusion.folders import fuse_checkpoints
    from commonweight.fusion.modules import fuse
    from commonweight.overlaps.measures.cosine import cosine_similarity, task_similarity
    from commonweight.overlaps.measures.fisher_overlap import fisher_overlap
    from commonweight.overlaps.measures.jaccard import jaccard_index
    from commonweight.overlaps.over_seeds import SeedOverlap, overlap_over_seeds
    from commonweight.overlaps.similarity.means import TaskSimilarity, every_layer_similarity, first_layer_similarity
    from commonweight.overlaps.similarity.probed import probed_similarity
    from commonweight.overlaps.table.table import OverlapTable, overlap
    from commonweight.supermasks.inference import infer_task
    from commonweight.supermasks.network import SupermaskNetwork
    from commonweight.supermasks.rules import Threshold, TopK
    from commonweight.transfer.alphas import Alphas, alphas_for, transfer_alphas
    from commonweight.transfer.ewc import ewc_penalty
    from commonweight.verdicts.verdict import Verdict


_HOME = {
    "Alphas": "transfer.alphas",
    "CommonweightError": "base.errors",
    "CustomLoss": "diagonal_fisher.likelihood",
    "Estimate": "base.estimate",
    "FoldSorted": "footprints.folds",
    "Footprint": "footprints.footprint",
    "IntegrityError": "base.errors",
    "MeasurementError": "base.errors",
    "NotComparableError": "base.errors",
    "OverlapTable": "overlaps.table.table",
    "SeedOverlap": "overlaps.over_seeds",
    "SupermaskNetwork": "supermasks.network",
    "TaskSimilarity": "overlaps.similarity.means",
    "Threshold": "supermasks.rules",
    "TopK": "supermasks.rules",
    "UsageError": "base.errors",
    "Verdict": "verdicts.verdict",
    "Verification": "diagonal_fisher.verification",
    "activity_footprint": "footprints.of_masks",
    "alphas_for": "transfer.alphas",
    "cosine_similarity": "overlaps.measures.cosine",
    "every_layer_similarity": "overlaps.similarity.means",
    "ewc_penalty": "transfer.ewc",
    "first_layer_similarity": "overlaps.similarity.means",
    "fisher": "diagonal_fisher.measure",
    "fisher_overlap": "overlaps.measures.fisher_overlap",
    "fuse": "fusion.modules",
    "fuse_checkpoints": "fusion.folders",
    "infer_task": "supermasks.inference",
    "jaccard_index": "overlaps.measures.jaccard",
    "open_images": "data.images.open",
    "overlap": "overlaps.table.table",
    "overlap_over_seeds": "overlaps.over_seeds",
    "probed_similarity": "overlaps.similarity.probed",
    "supermask_footprint": "footprints.of_masks",
    "task_similarity": "overlaps.measures.cosine",
    "task_stream": "data.images.stream",
    "transfer_alphas": "transfer.alphas",
    "verify": "diagonal_fisher.measure",
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
    "cosine_similarity",
    "every_layer_similarity",
    "ewc_penalty",
    "first_layer_similarity",
    "fisher",
    "fisher_overlap",
    "fuse",
    "fuse_checkpoints",
    "infer_task",
    "jaccard_index",
    "open_images",
    "overlap",
    "overlap_over_seeds",
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
