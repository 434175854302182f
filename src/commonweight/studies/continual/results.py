"""Everything a study found, read from its run folder; every number derived from what is stored there."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.estimate import Estimate
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.over_seeds import FEWEST, Of, overlap_over_seeds
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.overlaps.table.table import OverlapTable
from commonweight.studies.continual import metrics
from commonweight.studies.continual.approaches import SIMILARITIES, read_approach
from commonweight.studies.continual.plan import CLASSIC, seed_folders
from commonweight.studies.continual.training import Curve
from commonweight.studies.run.folder import read_json, read_text
from commonweight.studies.run.record import check_name
from commonweight.studies.run.results import recorded, result_text
from commonweight.transfer.alphas import Alphas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from commonweight.overlaps.over_seeds import SeedOverlap
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder

FORMAT = "commonweight-continual"
VERSION = 2


@dataclass(frozen=True)
class InferenceScore:
    """How well tasks are inferred by one method: means over tasks; nan where it is not defined."""

    task: float
    """Share of batches whose task is inferred rightly."""

    accuracy: float
    """Share of images whose label is predicted rightly, under whichever task was inferred."""

    accuracy_wrong_task_0: float
    """The same, but a batch counts 0 where its task is wrong: the scoring of SupSup."""

    known: float
    """Accuracy on the same images with the task known."""


@dataclass(frozen=True)
class ApproachRun:
    """What one approach did with one seed."""

    R: NDArray[np.float64]
    """Accuracy matrix ``[T, T]``: on task j after task i; nan above the diagonal."""

    curves: tuple[Curve, ...]
    """One per task."""

    alphas: tuple[Alphas | None, ...]
    """Per task; None for the first one and for approaches without prior tasks."""

    steps: int
    """Optimiser steps of its own training, all tasks together."""

    inference: Mapping[int, Mapping[str, InferenceScore]]
    """Images asked about together -> method -> score."""

    overlap: OverlapTable | None
    """Jaccard indices of the masks; None for a single task."""

    similarity: Mapping[str, TaskSimilarity]
    """Similarity -> its table, where it was measured."""

    @property
    def areas(self) -> list[float]:
        """Areas of the learning curves of all tasks that have a prior, over the last steps of one classic training."""
        starts = [(curve, curve.steps.index(curve.counted_from)) for curve in self.curves[1:]]
        return [metrics.curve_area(curve.steps[first:], curve.accuracies[first:]) for curve, first in starts]


@dataclass(frozen=True)
class ContinualStudy:
    """What a study found; every estimate has one value per seed."""

    plan: Plan
    facts: tuple[Mapping[str, Any], ...]
    """Per seed: what the tasks are, and their true similarity where there is one."""

    runs: Mapping[str, tuple[ApproachRun, ...]]
    """Approach -> one run per seed."""

    trainings: Mapping[str, Mapping[str, SeedOverlap]]
    """Approach -> ``masks`` and ``activity`` -> overlaps over seeds, where these vary the training alone and are at
    least three."""

    localised: Mapping[str, Any] | None = None
    """What switching off bits of masks did, in the first approach of seed 0, as plain values; None if nobody asked."""

    def average_accuracy(self, approach: str) -> Estimate:
        """Average the final accuracies with the task known."""
        return self._each(approach, lambda run: metrics.average_accuracy(run.R))

    def backward_transfer(self, approach: str) -> Estimate:
        """Compute what later tasks did to earlier ones."""
        return self._each(approach, lambda run: metrics.backward_transfer(run.R))

    def forgetting(self, approach: str) -> Estimate:
        """Compute how far earlier tasks fell below their best."""
        return self._each(approach, lambda run: metrics.forgetting(run.R))

    def area(self, approach: str) -> Estimate:
        """Average the areas of the learning curves of all tasks that have a prior."""
        return self._each(approach, lambda run: _mean(run.areas))

    def gain(self, approach: str, reference: str = CLASSIC) -> Estimate:
        """Average the area gains over all tasks that have a prior."""
        return Estimate.over_seeds([
            _mean([metrics.area_gain(area, before) for area, before in zip(run.areas, other.areas, strict=True)])
            for run, other in zip(self._runs(approach), self._runs(reference), strict=True)
        ])

    def difference(self, approach: str, reference: str = CLASSIC) -> Estimate:
        """Subtract final average accuracies, seed by seed."""
        return self.average_accuracy(approach) - self.average_accuracy(reference)

    def inference(self, approach: str, size: int, method: str, what: str) -> Estimate:
        """Collect one number of task inference."""
        return self._each(approach, lambda run: getattr(run.inference[size][method], what))

    def budget(self, approach: str) -> int:
        """Count the optimiser steps per seed, those of a classic run that the similarity needs included."""
        needs = next(found.needs_classic for found in self.plan.runs() if found.name == approach)
        return self._runs(approach)[0].steps + (self._runs(CLASSIC)[0].steps if needs else 0)

    @property
    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """Names of the tasks, per seed."""
        return tuple(tuple(facts["names"]) for facts in self.facts)

    def beyond_chance(self, approach: str, a: str, b: str, layer: str | None = None) -> Estimate:
        """Collect the overlap of the masks of two tasks beyond chance."""
        tables = [run.overlap for run in self._runs(approach) if run.overlap is not None]
        if not tables:
            raise UsageError("a study of one task has no overlaps")
        return Estimate.over_seeds([table.estimate("corrected", a, b, layer).value for table in tables])

    @property
    def same_tasks(self) -> bool:
        """Whether all seeds have the same tasks in the same order."""
        return same_tasks(self.facts)

    def rank_correlation(self, approach: str, similarity: str, layer: str) -> Estimate:
        """Compare a similarity with the truth, over every task and each of those before it."""
        values = [run.similarity[similarity].values[layer][self.earlier] for run in self._runs(approach)]
        return Estimate.over_seeds([*map(metrics.rank_correlation, values, self._truths)])

    @property
    def known_pairs(self) -> int:
        """Pairs of tasks whose true similarity is known, in the seed with the fewest: what is ranked."""
        return min(int(np.isfinite(truth).sum()) for truth in self._truths)

    @property
    def earlier(self) -> tuple[NDArray[np.intp], ...]:
        """Places of every task with each of those before it."""
        return np.tril_indices(self.plan.tasks, -1)

    @property
    def _truths(self) -> list[NDArray[np.float64]]:
        """Per seed the true similarities there; nan where they are not known."""
        unknown = np.full((self.plan.tasks, self.plan.tasks), np.nan)
        return [np.array(facts["truth"] or unknown, dtype=np.float64)[self.earlier] for facts in self.facts]

    def to_json(self) -> str:
        """Write everything but the overlap and similarity tables, which the run folder keeps in files of their own."""
        return result_text(
            FORMAT,
            VERSION,
            self.plan,
            facts=list(self.facts),
            approaches={name: self._record(name) for name in self.runs},
            localised=self.localised,
        )

    def _record(self, name: str) -> dict[str, Any]:
        numbers = {
            "average_accuracy": self.average_accuracy(name),
            "backward_transfer": self.backward_transfer(name),
            "forgetting": self.forgetting(name),
            "curve_area": self.area(name),
        }
        if CLASSIC in self.runs and name != CLASSIC:
            numbers |= {"area_gain_on_classic": self.gain(name), "accuracy_over_classic": self.difference(name)}
        return {
            "steps": self.budget(name),
            **{key: recorded(value) for key, value in numbers.items()},
            "task_inferred": {
                str(size): {
                    method: {
                        what: recorded(self.inference(name, size, method, what))
                        for what in InferenceScore.__dataclass_fields__
                    }
                    for method in self.plan.inference
                }
                for size in self.plan.inference_batches
            },
            "rank_correlation_with_truth": {
                similarity: {layer: recorded(self.rank_correlation(name, similarity, layer)) for layer in table.layers}
                for similarity, table in self.runs[name][0].similarity.items()
            },
            "over_seeds": {kind: _over_seeds(found) for kind, found in self.trainings.get(name, {}).items()},
            "R": [run.R.tolist() for run in self.runs[name]],
            "curves": [[{"steps": c.steps, "accuracies": c.accuracies} for c in run.curves] for run in self.runs[name]],
            "alphas": [
                [None if alphas is None else json.loads(alphas.to_json()) for alphas in run.alphas]
                for run in self.runs[name]
            ],
        }

    def _runs(self, approach: str) -> tuple[ApproachRun, ...]:
        if approach not in self.runs:
            raise UsageError(f"the study has no approach {approach!r}; it has {', '.join(self.runs)}")
        return self.runs[approach]

    def _each(self, approach: str, measure: Callable[[ApproachRun], float]) -> Estimate:
        return Estimate.over_seeds([measure(run) for run in self._runs(approach)])


def same_tasks(seeds: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether seeds, of each of which the facts are given, have the same tasks in the same order."""
    tasks = [[{**task, "seed": None} for task in facts["tasks"]] for facts in seeds]
    return all(each == tasks[0] for each in tasks)


def gather(plan: Plan, folders: list[SeedFolder]) -> ContinualStudy:
    """Read what a run holds."""
    facts = tuple(read_json(folder.facts) for folder in folders)
    for folder, found in zip(folders, facts, strict=True):
        for name in found["names"]:
            check_name(name, folder.facts)
    places = {approach.name: [folder.approach(approach) for folder in folders] for approach in plan.runs()}
    localised = next(iter(places.values()))[0].localised
    return ContinualStudy(
        plan,
        facts,
        {name: tuple(read_run(plan, place) for place in each) for name, each in places.items()},
        {name: _seed_overlaps(plan, each, facts[0]["names"]) for name, each in places.items()},
        read_json(localised) if localised.is_file() else None,
    )


def _seed_overlaps(plan: Plan, places: list[ApproachFolder], names: list[str]) -> dict[str, SeedOverlap]:
    """Masks and activities of all seeds against each other, where seeds vary the training alone."""
    if plan.vary != "training" or len(places) < FEWEST or plan.tasks == 1:
        return {}
    return {
        kind: overlap_over_seeds([
            {name: Footprint.load(place.footprint(kind, name)) for name in names} for place in places
        ])
        for kind in ("masks", "activity")
        if places[0].footprint(kind, names[0]).exists()
    }


def read_run(plan: Plan, folder: ApproachFolder) -> ApproachRun:
    """Read what one approach did with one seed."""
    records = [read_json(folder.task(index)) for index in range(plan.tasks)]
    R = np.full((len(records), len(records)), np.nan)
    for i, record in enumerate(records):
        R[i, : i + 1] = record["accuracies"]
    R.flags.writeable = False
    curves = [record["curve"] for record in records]
    tables = {name: folder.similarity(name) for name in SIMILARITIES}
    return ApproachRun(
        R,
        tuple(Curve(tuple(c["steps"]), tuple(c["accuracies"]), c["counted_from"]) for c in curves),
        tuple(
            None if record["alphas"] is None else Alphas.from_json(json.dumps(record["alphas"])) for record in records
        ),
        sum(curve["steps"][-1] for curve in curves),
        {
            int(size): {method: _score(score) for method, score in methods.items()}
            for size, methods in read_json(folder.inference).items()
        },
        OverlapTable.load(folder.path) if (folder.path / OVERLAP).is_file() else None,
        {name: TaskSimilarity.from_json(read_text(path)) for name, path in tables.items() if path.is_file()},
    )


def is_whole(plan: Plan, folder: ApproachFolder) -> bool:
    """Tell whether one approach did everything with one seed, and all of it can be read."""
    kinds = [kind for kind in ("masks", "activity") if kind == "masks" or (folder.path / kind).exists()]
    tables = [folder.path / OVERLAP, *(map(folder.similarity, SIMILARITIES) if "activity" in kinds else ())]
    try:
        read_run(plan, folder)
        counts = [len([Footprint.load(place) for place in (folder.path / kind).glob("[!.]*")]) for kind in kinds]
    except (IntegrityError, LookupError, TypeError, ValueError, AttributeError):  # of whatever a damaged file says
        return False
    return set(counts) == {plan.tasks} and (plan.tasks == 1 or all(table.is_file() for table in tables))


def is_readable(path: Path) -> bool:
    """Tell whether the record of a task is there and whole."""
    try:
        return {"accuracies", "curve", "alphas"} <= set(read_json(path))
    except (UsageError, IntegrityError, TypeError):
        return False


def load_masks(run: Path, study: ContinualStudy, approach: str) -> dict[str, Footprint]:
    """Open the masks of one network, that of seed 0."""
    folder = seed_folders(run, study.plan)[0].approach(read_approach(approach))
    return {task: Footprint.load(folder.footprint("masks", task)) for task in study.tasks[0]}


def _score(record: Mapping[str, float | None]) -> InferenceScore:
    return InferenceScore(**{what: math.nan if value is None else value for what, value in record.items()})


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _over_seeds(found: SeedOverlap) -> dict[str, Any]:
    layers = {layer: layer for layer in found.layers} | {"pooled": None}
    return {
        words: {
            "noise_ceiling": {name: recorded(found.noise_ceiling(name, layer)) for name in found.names},
            "pairs": [
                {"tasks": [a, b]} | {of: recorded(found.estimate(of, a, b, layer)) for of in get_args(Of)}
                for a, b in combinations(found.names, 2)
            ],
        }
        for words, layer in layers.items()
    }
