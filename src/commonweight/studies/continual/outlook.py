"""What a study of continual learning will take of steps, disk and memory, before any training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.base.folders import check_room, free_bytes
from commonweight.footprints.of_masks import supermask_footprint
from commonweight.studies.continual.networks import make_network, open_stream
from commonweight.studies.continual.opening import checked, going_on
from commonweight.studies.continual.plan import CLASSIC, seed_folders
from commonweight.studies.continual.training import first_rows, task_steps
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from commonweight.data.images import Images, TaskStream
    from commonweight.studies.continual.approaches import Approach
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

    def task(self, *, scores: bool) -> int:
        """Count what a finished task keeps, in memory and in the network's file."""
        return self.bits + self.statistics + (self.scores if scores else 0)


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
    def disk(self) -> int:
        """Everything but records, tables and figures."""
        return self.network + self.footprints


@dataclass(frozen=True)
class ContinualOutlook:
    """What a study will take; of approaches and seeds that are not finished, the whole is counted."""

    place: Path
    """Where it goes."""

    plan: Plan
    """With the seeds and approaches that the run folder holds already."""

    needs: NetworkNeeds
    approaches: Mapping[str, ApproachOutlook]
    """By word, the classic one among them where a similarity needs it."""

    @property
    def steps(self) -> int:
        """Optimiser steps that are missing, of all approaches and seeds."""
        return sum(sum(each.steps[seed] for seed in _missing(each)) for each in self.approaches.values())

    @property
    def disk(self) -> int:
        """Bytes that will be written and stay, but for records, tables and figures."""
        return sum(each.disk * len(_missing(each)) for each in self.approaches.values())

    @property
    def meanwhile(self) -> int:
        """Bytes at most beside that: a network's file is written anew after every task, and then takes its place."""
        return max((each.network for each in self.approaches.values() if _missing(each)), default=0)

    @property
    def memory(self) -> int:
        """Bytes at most, while the last task of a network is trained."""
        tasks = self.plan.tasks
        return self.needs.weights + max(
            each.training + each.finished * (tasks - 1) // tasks for each in self.approaches.values()
        )

    @property
    def free(self) -> int:
        """Bytes that are free on that disk."""
        return free_bytes(self.place)

    def check(self) -> None:
        """Check that there is room; a :class:`~commonweight.UsageError` says how much is missing."""
        if self.disk:
            check_room(self.place, self.disk + self.meanwhile)


def study_outlook(run: Path, plan: Plan) -> ContinualOutlook:
    """Check a study without beginning it, and tell what it will take."""
    plan, images = checked(run, plan)
    return outlook_of(run, going_on(run, plan, images), images)


def outlook_of(run: Path, plan: Plan, images: Images) -> ContinualOutlook:
    """Tell what a study will take, of a plan that was checked."""
    folders = seed_folders(run, plan)
    streams = [open_stream(plan, images, folder.seed) for folder in folders]
    needs = network_needs(plan, streams[0])
    steps = {approach.name: _steps(plan, approach, streams) for approach in plan.runs()}
    return ContinualOutlook(
        run,
        plan,
        needs,
        {
            approach.name: _of_approach(
                plan,
                approach,
                needs,
                steps[approach.name],
                steps[CLASSIC] if approach.needs_classic else (0,) * plan.seeds,
                tuple(folder.approach(approach).inference.is_file() for folder in folders),  # written last
            )
            for approach in plan.runs()
        },
    )


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


def _of_approach(
    plan: Plan,
    approach: Approach,
    needs: NetworkNeeds,
    steps: tuple[int, ...],
    steps_before: tuple[int, ...],
    there: tuple[bool, ...],
) -> ApproachOutlook:
    finished = plan.tasks * needs.task(scores=plan.keep_scores)
    return ApproachOutlook(
        steps,
        steps_before,
        training=needs.scores * (2 + MOMENTS[plan.optimiser])
        + needs.statistics
        + (needs.influenced if approach.kind == "transfer" else 0),
        finished=finished,
        network=needs.frozen + finished,
        footprints=plan.tasks * needs.footprints,
        there=there,
    )


def _steps(plan: Plan, approach: Approach, streams: Sequence[TaskStream]) -> tuple[int, ...]:
    return tuple(
        approach.passes * sum(task_steps(plan, len(stream[index].train)) for index in range(len(stream)))
        for stream in streams
    )


def _missing(approach: ApproachOutlook) -> list[int]:
    return [seed for seed, there in enumerate(approach.there) if not there]
