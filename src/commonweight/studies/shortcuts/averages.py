"""The averages of the trained models: every pair, every three, all of them; what they score, and which one is kept."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from commonweight.data.shortcuts.keyed import keyed
from commonweight.fusion.folders import fuse_checkpoints
from commonweight.fusion.modules import fused_at
from commonweight.fusion.paths import RANDOM, interpolation_path, random_direction, simplex_path
from commonweight.studies.shortcuts.evaluating import (
    accuracies,
    load_classifier,
    path_sets,
    read_written,
    score,
    scored_sets,
    write_record,
)
from commonweight.studies.shortcuts.plan import CONTROLS, ORIGINAL, START, TOGETHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.studies.shortcuts.evaluating import ScoredRows
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def write_average(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Write the uniform average of all models, if its Fisher is measured; what is there already stays."""
    # The other averages, as many as there are subsets, are scored in memory and never written.
    place = folder.model(TOGETHER.join(plan.shortcuts))
    if plan.fused_footprints and not place.exists():
        note(f"seed {folder.seed}: averaging {', '.join(plan.shortcuts)}")
        fuse_checkpoints([folder.model(name) for name in plan.shortcuts], output=place, note=note)


@contextlib.contextmanager
def average_of(folder: SeedFolder, chosen: Sequence[str], *, trust: bool = False) -> Iterator[Any]:
    """Make the uniform average of some models in memory; one that was written is read."""
    written = folder.model(TOGETHER.join(chosen))
    if written.exists():
        yield load_classifier(written, trust=trust)
        return
    with fused_at([load_classifier(folder.model(name), trust=trust) for name in chosen]) as model:
        yield model


def are_scored(plan: Plan, folder: SeedFolder) -> bool:
    """Tell whether every model and every average was scored."""
    return set(_scored(plan)) <= set(_former(folder).get("scores", {}))


def _scored(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The name of every model and every average that is scored, and which models it is the average of."""
    alone = (START, *(name for name in plan.trained if name in CONTROLS), *plan.shortcuts)
    return {TOGETHER.join(chosen): chosen for chosen in (*((name,) for name in alone), *plan.averages)}


def _former(folder: SeedFolder) -> dict[str, Any]:
    return dict(read_written(folder.scores)) if folder.scores.is_file() else {}


def score_models(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score every model and every average on the original rows and on every shortcut's synthetic rows."""
    # What was scored before is not scored again.
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


CONTROL = "row by row"
"""How random directions are drawn; walks whose file says nothing of it, or something else, are taken again."""


TRIANGLE_STEPS = 6
"""Along each side: 28 points, among them the corners, the middles of the sides and the centre."""


def has_walks(place: Path) -> bool:
    """Tell whether a file holds walks with controls as they are drawn now."""
    try:
        return bool(json.loads(place.read_text(encoding="utf-8")).get("control") == CONTROL)
    except (OSError, ValueError, AttributeError):
        return False


def walk(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score along the line between every two models, and from each as far in a random direction."""
    # A shortcut can break before the task does on any way out of a model; only what breaks earlier on the way to
    # another
    # model than on a random one, as long tensor by tensor and through the same entries, has to do with the other model.
    # Only the two models of a path, and the end of its control, are in memory.
    if has_walks(folder.paths):
        return
    if folder.paths.is_file():
        note(f"seed {folder.seed}: random directions are not drawn {CONTROL} in {folder.paths}; walks are taken again")
    sets = path_sets(plan, folder)
    paths = []
    for pair in combinations(plan.shortcuts, 2):
        ends = {code: load_classifier(folder.model(code), trust=plan.trust_remote_code) for code in pair}
        note(f"seed {folder.seed}: walking from {pair[0]} to {pair[1]}")
        shown = {name: sets[name] for name in (ORIGINAL, *pair)}
        paths.append(_walk(plan, pair, tuple(ends.values()), shown))
        for a, b in (pair, pair[::-1]):
            note(f"seed {folder.seed}: walking from {a} in a random direction, as far as to {b}")
            control = random_direction(ends[a], ends[b], seed=keyed(folder.seed, a, b), only_moved=True)
            found = _walk(plan, (a, RANDOM), (ends[a], control), {name: sets[name] for name in (ORIGINAL, a)})
            del control  # before the next is made
            paths.append(found | {"as_far_as": b})
        del ends  # before the next two are read
    write_record(folder.paths, {"control": CONTROL, "paths": paths})


def walk_triangle(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score the averages of the first three models, with weights all over their triangle."""
    if not plan.triangle or folder.triangle.is_file():
        return
    note(f"seed {folder.seed}: walking between {', '.join(plan.triangle)}")
    sets = path_sets(plan, folder)
    points = simplex_path(steps=TRIANGLE_STEPS)
    models = [load_classifier(folder.model(code), trust=plan.trust_remote_code) for code in plan.triangle]
    found = accuracies(models, points, {name: sets[name] for name in (ORIGINAL, *plan.triangle)})
    write_record(folder.triangle, {"corners": plan.triangle, "points": points, "accuracy": found})


def _walk(
    plan: Plan, names: tuple[str, ...], models: tuple[Any, ...], sets: Mapping[str, ScoredRows]
) -> dict[str, Any]:
    points = interpolation_path(points=plan.path_points)
    found = accuracies(models, points, sets)
    return {"from": names[0], "to": names[1], "points": [weights[1] for weights in points], "accuracy": found}
