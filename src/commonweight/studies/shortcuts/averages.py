"""The averages of the trained models: every pair, every three, all of them; what they score, and which one is kept."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from commonweight.decision.fusing import fuse
from commonweight.decision.in_place import fused_at
from commonweight.studies.scores import score
from commonweight.studies.shortcuts.evaluating import load_classifier, read_written, scored_sets, write_record
from commonweight.studies.shortcuts.plan import CONTROLS, ORIGINAL, START, TOGETHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commonweight.studies.measure import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def write_average(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Write the uniform average of all models, if its Fisher is measured; what is there already stays.

    The other averages, as many as there are subsets, are scored in memory and never written.

    Args:
        plan: Which models.
        folder: The seed, its models trained.
        note: Takes one sentence at a time that the user should hear.
    """
    place = folder.model(TOGETHER.join(plan.shortcuts))
    if plan.fused_footprints and not place.exists():
        note(f"seed {folder.seed}: averaging {', '.join(plan.shortcuts)}")
        fuse([folder.model(name) for name in plan.shortcuts], output=place, note=note)


@contextlib.contextmanager
def average_of(folder: SeedFolder, chosen: Sequence[str], *, trust: bool = False) -> Iterator[Any]:
    """Make the uniform average of some models in memory; one that was written is read.

    Args:
        folder: The seed, its models trained.
        chosen: Their names.
        trust: Whether code that comes with them may be run.

    Yields:
        The average, as long as the block lasts; the models and one copy are in memory.
    """
    written = folder.model(TOGETHER.join(chosen))
    if written.exists():
        yield load_classifier(written, trust=trust)
        return
    with fused_at([load_classifier(folder.model(name), trust=trust) for name in chosen]) as model:
        yield model


def are_scored(plan: Plan, folder: SeedFolder) -> bool:
    """Tell whether every model and every average was scored.

    Args:
        plan: Which models.
        folder: The seed.

    Returns:
        Whether they were.
    """
    return set(_scored(plan)) <= set(_former(folder).get("scores", {}))


def _scored(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The name of every model and every average that is scored, and which models it is the average of."""
    alone = (START, *(name for name in plan.trained if name in CONTROLS), *plan.shortcuts)
    return {TOGETHER.join(chosen): chosen for chosen in (*((name,) for name in alone), *plan.averages)}


def _former(folder: SeedFolder) -> dict[str, Any]:
    return dict(read_written(folder.scores)) if folder.scores.is_file() else {}


def score_models(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score every model and every average on the original rows and on every shortcut's synthetic rows.

    What was scored before is not scored again.

    Args:
        plan: Which models.
        folder: The seed, everything trained.
        note: Takes one sentence at a time that the user should hear.
    """
    if are_scored(plan, folder):
        return
    parts = {part: scored_sets(plan, folder, part) for part in ("dev", "test")}
    names = (ORIGINAL, *plan.shortcuts)
    sets = {
        f"{name} {part}": found[name].chosen(plan.scored_rows, folder.seed)
        for part, found in parts.items()
        for name in names
    }
    for data in [data for data, found in sets.items() if any(row.label < 0 for row in found.rows)]:
        note(f"seed {folder.seed}: {data} has rows without labels, and is not scored")
        del sets[data]
    former = _former(folder).get("scores", {})
    scores: dict[str, dict[str, Any]] = {}
    for name, chosen in _scored(plan).items():
        if name in former:
            scores[name] = former[name]
            continue
        note(f"seed {folder.seed}: scoring {name}")
        with average_of(folder, chosen, trust=plan.trust_remote_code) as model:
            scores[name] = {data: asdict(score(model, rows)) for data, rows in sets.items()}
    record = {"constant_answer": {data: rows.constant for data, rows in sets.items()}, "scores": scores}
    write_record(folder.scores, record)
