"""What a network that has learned all tasks is measured for: masks, statistics, similarities, task inference."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from commonweight.base.folders import write_whole
from commonweight.base.records import without_nan
from commonweight.footprints.of_masks import activity_footprint, supermask_footprint
from commonweight.overlaps.similarity.means import every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.overlaps.table.table import overlap
from commonweight.studies.continual.priors import SHUFFLES, probe_images
from commonweight.studies.continual.results import InferenceScore
from commonweight.studies.continual.training import accuracy, first_rows
from commonweight.supermasks.inference import predict

if TYPE_CHECKING:
    from commonweight.base.choices import Method
    from commonweight.data.images import TaskStream
    from commonweight.footprints.footprint import Footprint
    from commonweight.studies.continual.plan import ApproachFolder, Plan
    from commonweight.supermasks.network import SupermaskNetwork


def measure(net: SupermaskNetwork, stream: TaskStream, folder: ApproachFolder, plan: Plan) -> None:
    """Measure a network, and write everything into the folder of its approach; ``inference.json`` comes last."""
    flipped = plan.score_initialisation == "shared"
    counts = {name: len(stream[index].train) for index, name in enumerate(stream.names)}
    masks = {name: supermask_footprint(net, name, flipped=flipped, count=count) for name, count in counts.items()}
    activity = {name: activity_footprint(net, name, count=count) for name, count in counts.items() if net.norms}
    _save(masks, "masks", folder)
    _save(activity, "activity", folder)
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
    write_whole(folder.inference, json.dumps(without_nan(inference), indent=1) + "\n")


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


def _save(footprints: dict[str, Footprint], kind: str, folder: ApproachFolder) -> None:
    for name, footprint in footprints.items():
        footprint.save(folder.footprint(kind, name), overwrite=True)  # one of a run that was stopped while it measured
