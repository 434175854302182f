"""What a network is measured for: which prior tasks help a new one, and once all are learned, everything else."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from commonweight.base.folders import write_whole
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import activity_footprint, supermask_footprint
from commonweight.overlaps.similarity.means import every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.overlaps.table.table import overlap
from commonweight.studies.continual.approaches import Approach
from commonweight.studies.continual.plan import CLASSIC
from commonweight.studies.continual.results import InferenceScore
from commonweight.studies.continual.training import accuracy, first_rows
from commonweight.studies.run.folder import write_json
from commonweight.supermasks.inference import predict
from commonweight.transfer.alphas import alphas_for, transfer_alphas

if TYPE_CHECKING:
    from torch import Tensor

    from commonweight.base.choices import Method
    from commonweight.data.images import Task, TaskStream
    from commonweight.overlaps.similarity.means import TaskSimilarity
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder
    from commonweight.studies.continual.training import LayerAlphas
    from commonweight.supermasks.network import SupermaskNetwork
    from commonweight.transfer.alphas import Alphas

SHUFFLES = 199
"""Of the null of the probed similarity, which takes the longest to make: enough for its 95 % point."""


def choose_priors(
    net: SupermaskNetwork, task: Task, approach: Approach, stream: TaskStream, plan: Plan, seed: SeedFolder
) -> tuple[LayerAlphas, Alphas | None]:
    """Choose how much each prior task influences each masked weight of a new one."""
    if not approach.has_priors or not task.index:
        return {}, None
    truth = stream.truth() if approach.prior == "oracle" else None
    alphas = transfer_alphas(
        _similarity(net, task, approach, stream, plan, seed),
        task.name,
        approach.prior,
        per_layer=approach.per_layer,
        truth=None if truth is None else truth[: task.index + 1, : task.index + 1],
        seed=seed.seed,
    )
    return alphas_for(net, alphas, first_rows(task.train, 2)[0].to(plan.device)), alphas


def _similarity(
    net: SupermaskNetwork, task: Task, approach: Approach, stream: TaskStream, plan: Plan, seed: SeedFolder
) -> TaskSimilarity:
    if not approach.needs_classic:
        return probed_similarity(net, {task.name: probe_images(task, plan)}, draws=SHUFFLES)
    classic = seed.approach(Approach(CLASSIC))
    known = {name: Footprint.load(classic.footprint("activity", name)) for name in stream.names[: task.index + 1]}
    return first_layer_similarity(known) if approach.similarity == "first_layer" else every_layer_similarity(known)


def probe_images(task: Task, plan: Plan) -> list[Tensor]:
    """Take the images of a task that are passed through masks of other tasks."""
    return [first_rows(task.train, plan.probe_rows)[0].to(plan.device)]


def measure(net: SupermaskNetwork, stream: TaskStream, folder: ApproachFolder, plan: Plan) -> None:
    """Measure a network, and write everything into the folder of its approach; ``inference.json`` comes last."""
    flipped = plan.score_initialisation == "shared"
    counts = {name: len(stream[index].train) for index, name in enumerate(stream.names)}
    masks = {name: supermask_footprint(net, name, flipped=flipped, count=count) for name, count in counts.items()}
    activity = {name: activity_footprint(net, name, count=count) for name, count in counts.items() if net.norms}
    for kind, footprints in (("masks", masks), ("activity", activity)):
        for name, footprint in footprints.items():  # there are some if a run was stopped while it measured
            footprint.save(folder.footprint(kind, name), overwrite=True)
    if len(stream) > 1:
        overlap(masks).save(folder.path)
        if net.norms:
            probes = {stream.names[index]: probe_images(stream[index], plan) for index in range(len(stream))}
            write_whole(folder.similarity("first_layer"), first_layer_similarity(activity).to_json())
            write_whole(folder.similarity("every_layer"), every_layer_similarity(activity).to_json())
            write_whole(folder.similarity("probed"), probed_similarity(net, probes, draws=SHUFFLES).to_json())
    inference = {
        str(size): {method: asdict(infer_all(net, stream, method, size, plan)) for method in plan.inference}
        for size in plan.inference_batches
    }
    write_json(folder.inference, inference)


def infer_all(net: SupermaskNetwork, stream: TaskStream, method: Method, size: int, plan: Plan) -> InferenceScore:
    """Predict the first test images of every task without saying which task they are of."""
    if method == "nearest_statistics" and (size == 1 or not net.norms):
        return InferenceScore(math.nan, math.nan, math.nan, math.nan)
    shares = []
    for index, name in enumerate(stream.names):
        inputs, labels = first_rows(stream[index].test, plan.inference_rows)
        inputs = inputs.to(plan.device)
        batches = right = hits = hits_right = 0
        for some, answers in zip(inputs.split(size), labels.split(size), strict=True):
            if len(answers) < size:  # a last batch that is smaller
                continue
            found = predict(net, some, method=method)
            correct = int((found.labels.cpu() == answers).sum())
            batches += 1
            right += found.task == name
            hits += correct
            hits_right += correct if found.task == name else 0
        count = batches * size
        known = accuracy(net, name, inputs[:count], labels[:count])
        shares.append((right / batches, hits / count, hits_right / count, known))
    return InferenceScore(*(sum(column) / len(shares) for column in zip(*shares, strict=True)))
