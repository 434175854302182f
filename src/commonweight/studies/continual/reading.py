"""Reads what a study left in its run folder."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.over_seeds import FEWEST, overlap_over_seeds
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.overlaps.table.table import OverlapTable
from commonweight.studies.continual.approaches import SIMILARITIES, read_approach
from commonweight.studies.continual.plan import seed_folders
from commonweight.studies.continual.results import ApproachRun, ContinualStudy, InferenceScore
from commonweight.studies.continual.training import Curve
from commonweight.studies.run.record import check_name
from commonweight.transfer.alphas import Alphas

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.overlaps.over_seeds import SeedOverlap
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder


def gather(plan: Plan, folders: list[SeedFolder]) -> ContinualStudy:
    """Read what a run holds."""
    facts = tuple(read_json(folder.facts) for folder in folders)
    for folder, found in zip(folders, facts, strict=True):
        for name in found["names"]:
            check_name(name, folder.facts)
    return ContinualStudy(
        plan,
        facts,
        {
            approach.name: tuple(read_run(plan, folder.approach(approach)) for folder in folders)
            for approach in plan.runs()
        },
        {approach.name: _over_seeds(plan, folders, facts, approach) for approach in plan.runs()},
    )


def _over_seeds(
    plan: Plan, folders: list[SeedFolder], facts: tuple[Any, ...], approach: Approach
) -> dict[str, SeedOverlap]:
    """Masks and activities of all seeds against each other, where seeds vary the training alone."""
    if plan.vary != "training" or len(folders) < FEWEST or plan.tasks == 1:
        return {}
    places = [folder.approach(approach) for folder in folders]
    names = facts[0]["names"]
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
    tables = {name: folder.similarity(name) for name in SIMILARITIES}
    return ApproachRun(
        R,
        tuple(_curve(record["curve"]) for record in records),
        tuple(
            None if record["alphas"] is None else Alphas.from_json(json.dumps(record["alphas"])) for record in records
        ),
        sum(record["curve"]["steps"][-1] for record in records),
        {
            int(size): {method: _score(score) for method, score in methods.items()}
            for size, methods in read_json(folder.inference).items()
        },
        OverlapTable.load(folder.path) if folder.overlap.is_file() else None,
        {name: TaskSimilarity.from_json(_text(path)) for name, path in tables.items() if path.is_file()},
    )


def is_whole(plan: Plan, folder: ApproachFolder) -> bool:
    """Tell whether one approach did everything with one seed, and all of it can be read."""
    kinds = [kind for kind in ("masks", "activity") if kind == "masks" or (folder.path / kind).exists()]
    tables = [folder.overlap, *(map(folder.similarity, SIMILARITIES) if "activity" in kinds else ())]
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


def load_masks(run: Path, study: ContinualStudy, approach: str, seed: int = 0) -> dict[str, Footprint]:
    """Open the masks of one network."""
    folder = seed_folders(run, study.plan)[seed].approach(read_approach(approach))
    return {task: Footprint.load(folder.footprint("masks", task)) for task in study.tasks[seed]}


def read_json(path: Path) -> Any:
    """Read a JSON file of a run."""
    text = _text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"{path} is damaged ({error}); remove it, and run the study again") from error


def _text(path: Path) -> str:
    if not path.is_file():
        raise UsageError(f"{path} is not there yet: run the study again, and it goes on where it stopped")
    return path.read_text(encoding="utf-8")


def _curve(record: Mapping[str, Any]) -> Curve:
    return Curve(tuple(record["steps"]), tuple(record["accuracies"]), record["counted_from"])


def _score(record: Mapping[str, float | None]) -> InferenceScore:
    return InferenceScore(**{what: math.nan if value is None else value for what, value in record.items()})
