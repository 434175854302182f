"""Which weights hold what two networks, or two tasks in one network, have in common?

A footprint says where a network keeps one piece of knowledge; an overlap says how much two footprints coincide. Public
names are imported when they are first used, so that ``import commonweight`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from commonweight.base.version import __version__ as __version__

if TYPE_CHECKING:
    from commonweight.base.errors import CommonweightError
    from commonweight.base.estimate import Estimate
    from commonweight.data.images.open import open_images
    from commonweight.data.images.stream import task_stream
    from commonweight.diagonal_fisher.measure import fisher, verify
    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.of_adam import adam_footprint
    from commonweight.footprints.of_change import change_footprint, saliency_footprint
    from commonweight.footprints.of_masks import activity_footprint, supermask_footprint
    from commonweight.fusion.folders import fuse_checkpoints
    from commonweight.fusion.modules import fuse
    from commonweight.overlaps.measures.cosine import cosine_similarity, task_similarity
    from commonweight.overlaps.measures.fisher_overlap import fisher_overlap
    from commonweight.overlaps.measures.jaccard import jaccard_index
    from commonweight.overlaps.similarity.means import every_layer_similarity, first_layer_similarity
    from commonweight.overlaps.similarity.probed import probed_similarity
    from commonweight.overlaps.table.table import OverlapTable, overlap
    from commonweight.studies.localise.run import localise
    from commonweight.studies.merge_check.run import merge_check
    from commonweight.supermasks.inference import infer_task
    from commonweight.supermasks.network import SupermaskNetwork
    from commonweight.transfer.alphas import transfer_alphas
    from commonweight.transfer.ewc import ewc_penalty
    from commonweight.verdicts.verdict import Verdict

_HOME = {
    "CommonweightError": "base.errors",
    "Estimate": "base.estimate",
    "Footprint": "footprints.footprint",
    "OverlapTable": "overlaps.table.table",
    "SupermaskNetwork": "supermasks.network",
    "Verdict": "verdicts.verdict",
    "activity_footprint": "footprints.of_masks",
    "adam_footprint": "footprints.of_adam",
    "change_footprint": "footprints.of_change",
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
    "localise": "studies.localise.run",
    "merge_check": "studies.merge_check.run",
    "open_images": "data.images.open",
    "overlap": "overlaps.table.table",
    "probed_similarity": "overlaps.similarity.probed",
    "saliency_footprint": "footprints.of_change",
    "supermask_footprint": "footprints.of_masks",
    "task_similarity": "overlaps.measures.cosine",
    "task_stream": "data.images.stream",
    "transfer_alphas": "transfer.alphas",
    "verify": "diagonal_fisher.measure",
}

__all__ = [
    "CommonweightError",
    "Estimate",
    "Footprint",
    "OverlapTable",
    "SupermaskNetwork",
    "Verdict",
    "activity_footprint",
    "adam_footprint",
    "change_footprint",
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
    "localise",
    "merge_check",
    "open_images",
    "overlap",
    "probed_similarity",
    "saliency_footprint",
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
