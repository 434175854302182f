"""Which prior tasks influence a new one: the similarity an approach asks for, and the alphas that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.similarity.means import every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.studies.continual.training import first_rows
from commonweight.transfer.alphas import alphas_for, transfer_alphas

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from commonweight.data.images import Task, TaskStream
    from commonweight.overlaps.similarity.means import TaskSimilarity
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.plan import ApproachFolder, Plan
    from commonweight.studies.continual.training import LayerAlphas
    from commonweight.supermasks.network import SupermaskNetwork
    from commonweight.transfer.alphas import Alphas


SHUFFLES = 199
"""Of the null of the probed similarity, which takes the longest to make: enough for its 95 % point."""


def choose_priors(
    net: SupermaskNetwork,
    task: Task,
    approach: Approach,
    stream: TaskStream,
    classic: ApproachFolder,
    plan: Plan,
    seed: int,
) -> tuple[LayerAlphas, Alphas | None]:
    """Choose how much each prior task influences each masked weight of a new one."""
    if not approach.has_priors or not task.index:
        return {}, None
    table = _table(net, task, approach, stream, classic, plan)
    alphas = transfer_alphas(
        table,
        task.name,
        approach.prior,
        per_layer=approach.per_layer,
        truth=_truth(stream, task.index) if approach.prior == "oracle" else None,
        seed=seed,
    )
    images = first_rows(task.train, 2)[0].to(plan.device)
    return alphas_for(net, alphas, images), alphas


def activities(folder: ApproachFolder, names: tuple[str, ...]) -> Mapping[str, Footprint]:
    """Read the activity footprints of a finished run."""
    return {name: Footprint.load(folder.footprint("activity", name)) for name in names}


def probe_images(task: Task, plan: Plan) -> list[Tensor]:
    """Take the images of a task that are passed through masks of other tasks."""
    return [first_rows(task.train, plan.probe_rows)[0].to(plan.device)]


def _table(
    net: SupermaskNetwork, task: Task, approach: Approach, stream: TaskStream, classic: ApproachFolder, plan: Plan
) -> TaskSimilarity:
    if not approach.by_similarity or approach.similarity == "probed":
        return probed_similarity(net, {task.name: probe_images(task, plan)}, draws=SHUFFLES)
    known = activities(classic, stream.names[: task.index + 1])
    if approach.similarity == "first_layer":
        return first_layer_similarity(known)
    return every_layer_similarity(known)


def _truth(stream: TaskStream, index: int) -> np.ndarray | None:
    known = stream.truth()
    return None if known is None else known[: index + 1, : index + 1]
