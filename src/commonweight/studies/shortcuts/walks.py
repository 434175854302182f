"""Accuracies along lines through weight space, as far in random directions, and over the triangle of three models."""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

from commonweight.data.shortcuts.keyed import keyed
from commonweight.decision.control import RANDOM, random_direction
from commonweight.decision.paths import interpolation_path, simplex_path
from commonweight.studies.shortcuts.evaluating import accuracies, load_classifier, path_sets, write_record
from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.studies.measure import Note
    from commonweight.studies.scores import ScoredRows
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

CONTROL = "row by row"
"""How random directions are drawn; walks whose file says nothing of it, or something else, are taken again."""

TRIANGLE_STEPS = 6
"""Along each side: 28 points, among them the corners, the middles of the sides and the centre."""


def has_walks(place: Path) -> bool:
    """Tell whether a file holds walks with controls as they are drawn now.

    Args:
        place: A file ``paths.json``, or where it would be.

    Returns:
        Whether it does.
    """
    try:
        return bool(json.loads(place.read_text(encoding="utf-8")).get("control") == CONTROL)
    except (OSError, ValueError, AttributeError):
        return False


def walk(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score along the line between every two models, and from each as far in a random direction.

    A shortcut can break before the task does on any way out of a model; only what breaks earlier on the way to another
    model than on a random one, as long tensor by tensor and through the same entries, has to do with the other model.
    Only the two models of a path, and the end of its control, are in memory.

    Args:
        plan: How many points and rows.
        folder: The seed, its models trained.
        note: Takes one sentence at a time that the user should hear.
    """
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
    """Score the averages of the first three models, with weights all over their triangle.

    Args:
        plan: Which models, and how many rows; with two shortcuts there is no triangle.
        folder: The seed, its models trained.
        note: Takes one sentence at a time that the user should hear.
    """
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
