"""What a study of continual learning will take of steps, disk and memory, before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.base.text import size_words
from commonweight.footprints.of_masks import supermask_footprint
from commonweight.interventions.masks import OFF_PER_TASK
from commonweight.overlaps.over_seeds import FEWEST
from commonweight.studies.continual.plan import seed_folders
from commonweight.studies.continual.report import TOO_FEW
from commonweight.studies.continual.training import LOCALISED_ROWS, first_rows, make_network, open_stream, task_steps
from commonweight.studies.run.outlook import Outlook
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from commonweight.data.images import Images, TaskStream
    from commonweight.studies.continual.plan import Optimiser, Plan

MOMENTS: Mapping[Optimiser, int] = {"adam": 2, "rmsprop": 1}
"""What an optimiser keeps beside a score: so many numbers."""

BATCHES = 8
"""Bytes of the number of batches behind a statistic."""


@dataclass(frozen=True)
class NetworkNeeds:
    """Bytes of a supermask network; those of tasks are of one task."""

    weights: int
    """The frozen network, in memory."""

    frozen: int
    """The frozen network, in its file: a masked weight is one bit."""

    scores: int
    influenced: int
    """Scores of the weights that prior tasks can influence: those with a batch norm behind them."""

    bits: int
    statistics: int
    """What batch norms keep."""

    footprints: int
    """Those of the mask and, where there are batch norms, of the activity; each with its sample of frozen weights."""


@dataclass(frozen=True)
class ApproachOutlook:
    """What one approach will take; memory and disk are in bytes, and of one seed."""

    steps: tuple[int, ...]
    """Optimiser steps of its own training per seed, all tasks together."""

    steps_before: tuple[int, ...]
    """Those of the classic run that its similarity needs; 0 where it needs none."""

    training: int
    """Memory of the task that is trained: scores, gradients, what the optimiser keeps, the direction of prior tasks."""

    finished: int
    """Memory of all tasks once they are finished: bits and statistics, and scores unless they are dropped."""

    network: int
    """The network's file once all tasks are learned."""

    footprints: int
    """Those of all tasks."""

    there: tuple[bool, ...]
    """Whether the run folder holds it already, per seed."""

    @property
    def missing_steps(self) -> int:
        """Its own optimiser steps that are missing."""
        return sum(steps for steps, there in zip(self.steps, self.there, strict=True) if not there)

    @property
    def of_a_seed(self) -> int:
        """Bytes on disk of one seed, but for records, tables and figures."""
        return self.network + self.footprints

    @property
    def disk(self) -> int:
        """Bytes that it will write: of a seed that is not finished the whole is counted."""
        return self.of_a_seed * self.there.count(False)


ContinualOutlook = Outlook[ApproachOutlook]

COLUMNS: Mapping[str, Callable[[ApproachOutlook], str]] = {
    "steps a seed": lambda each: _range(each.steps),
    "with classic": lambda each: _range([a + b for a, b in zip(each.steps, each.steps_before, strict=True)]),
    "all seeds": lambda each: str(sum(each.steps)),
    "training": lambda each: size_words(each.training),
    "kept": lambda each: size_words(each.finished),
    "disk a seed": lambda each: size_words(each.of_a_seed),
    "disk, all seeds": lambda each: size_words(each.of_a_seed * len(each.there)),
    "there": lambda each: f"{sum(each.there)} of {len(each.there)}",
}
READING = (
    "With classic: with the steps of the classic run that the similarity needs. Training: memory of the task that is "
    "learned, its scores, their gradients, what the optimiser keeps and, in transfer, what prior tasks say. Kept: "
    "memory of all tasks once they are learned. Disk: networks, and footprints of masks and activity."
)


def outlook_of(run: Path, plan: Plan, images: Images) -> ContinualOutlook:
    """Tell what a study will take, of a plan that was checked."""
    folders = seed_folders(run, plan)
    streams = [open_stream(plan, images, folder.seed) for folder in folders]
    needs = network_needs(plan, streams[0])
    single = [sum(task_steps(plan, len(stream[index].train)) for index in range(len(stream))) for stream in streams]
    training = needs.scores * (2 + MOMENTS[plan.optimiser]) + needs.statistics
    finished = plan.tasks * (needs.bits + needs.statistics + (needs.scores if plan.keep_scores else 0))
    approaches = {
        approach.name: ApproachOutlook(
            steps=tuple(approach.passes * steps for steps in single),
            steps_before=tuple(single) if approach.needs_classic else (0,) * plan.seeds,
            training=training + (needs.influenced if approach.kind == "transfer" else 0),
            finished=finished,
            network=needs.frozen + finished,
            footprints=plan.tasks * needs.footprints,
            there=tuple(folder.approach(approach).inference.is_file() for folder in folders),
        )
        for approach in plan.runs()
    }
    last = max(each.training for each in approaches.values()) + finished * (plan.tasks - 1) // plan.tasks
    return Outlook(
        run,
        f"approaches, {plan.tasks} tasks each",
        approaches,
        COLUMNS,
        {"frozen weights": needs.weights, "at most, with the tasks learned before": needs.weights + last},
        facts={"optimiser steps that are missing": str(sum(each.missing_steps for each in approaches.values()))}
        | ({"masks with bits switched off, each scored twice": _switched_off(plan)} if plan.localise else {}),
        # a network's file is written anew after every task, and then takes its place
        meanwhile=needs.frozen + finished if any(each.disk for each in approaches.values()) else 0,
        remarks=(READING, *([TOO_FEW] if plan.vary == "training" and plan.seeds < FEWEST else [])),
    )


def _switched_off(plan: Plan) -> str:
    """Count the masks that are scored, with stored and re-estimated statistics, and the rows of each."""
    count = math.comb(plan.tasks, 2) * 2 * OFF_PER_TASK
    return f"{count}, on about half of the first {LOCALISED_ROWS} test images of the task"


def network_needs(plan: Plan, stream: TaskStream) -> NetworkNeeds:
    """Measure the network of a plan."""
    images = first_rows(stream[0].train, 2)[0]
    model = make_network(plan, images, stream.outputs, seed=0)
    net = SupermaskNetwork(model)
    net.add_task("any")
    kept = model.state_dict()
    stored = dict(model.named_parameters()) | {name: each for name, each in model.named_buffers() if name in kept}
    size = {name: net.weight(name).nbytes for name in net.masked}
    bits = {name: net.bits("any", name).nbytes for name in net.masked}
    norms = net.statistics("any").values()
    sample = sum(tensor.nbytes for tensor in supermask_footprint(net, "any").weight_sample.values())
    return NetworkNeeds(
        weights=sum(tensor.nbytes for tensor in stored.values()),
        frozen=sum(bits.values()) + sum(tensor.nbytes for name, tensor in stored.items() if name not in bits),
        scores=sum(size.values()),
        influenced=sum(size[name] for name, norm in net.norm_behind(images).items() if norm is not None),
        bits=sum(bits.values()),
        statistics=sum(norm.mean.nbytes + norm.variance.nbytes + BATCHES for norm in norms),
        footprints=sum(bits.values()) + sample + sum(norm.mean.nbytes for norm in norms) + (sample if norms else 0),
    )


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
