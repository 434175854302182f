"""Accuracies: of every model on every set, and along straight lines through weight space."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import permutations
from typing import TYPE_CHECKING, Any

from commonweight.data.shortcuts import ShortcutData
from commonweight.data.shortcuts.keyed import keyed
from commonweight.decision.control import RANDOM, random_direction
from commonweight.decision.in_place import fused_at
from commonweight.decision.paths import interpolation_path
from commonweight.nn.checkpoint import quiet_transformers
from commonweight.studies.scores import ScoredRows, encoded_rows, score
from commonweight.studies.shortcuts.plan import ORIGINAL, RANDOM_LABELS, START, TOGETHER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.studies.measure import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def score_models(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score every model and every average on the original rows and on every shortcut's synthetic rows.

    Args:
        plan: Which models.
        folder: The seed, everything trained and averaged.
        note: Takes one sentence at a time that the user should hear.
    """
    if folder.scores.is_file():
        return
    tokenizer = _tokenizer(folder)
    sets: dict[str, ScoredRows] = {}
    for part in ("dev", "test"):
        first = ShortcutData.load(folder.data(plan.shortcuts[0]))
        sets[f"{ORIGINAL} {part}"] = _encoded(first, f"original_{part}", tokenizer, plan)
        for code in plan.shortcuts:
            sets[f"{code} {part}"] = _encoded(
                ShortcutData.load(folder.data(code)), f"synthetic_{part}", tokenizer, plan
            )
    for data in [data for data, found in sets.items() if any(row.label < 0 for row in found.rows)]:
        note(f"seed {folder.seed}: {data} has rows without labels, and is not scored")
        del sets[data]
    names = [START, RANDOM_LABELS, *plan.shortcuts, *(TOGETHER.join(chosen) for chosen in plan.averages)]
    scores: dict[str, dict[str, Any]] = {}
    for name in names:
        note(f"seed {folder.seed}: scoring {name}")
        model = _model(folder.model(name))
        scores[name] = {data: asdict(score(model, rows)) for data, rows in sets.items()}
    record = {"constant_answer": {data: rows.constant for data, rows in sets.items()}, "scores": scores}
    _write(folder.scores, record)


def walk(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Score along the line between every two models, and from each as far in a random direction.

    A shortcut can break before the task does on any way out of a model; only what breaks earlier on the way to another
    model than on a random one, as long tensor by tensor and through the same entries, has to do with the other model.

    Args:
        plan: How many points and rows.
        folder: The seed, its models trained.
        note: Takes one sentence at a time that the user should hear.
    """
    if folder.paths.is_file():
        return
    tokenizer = _tokenizer(folder)
    data = {code: ShortcutData.load(folder.data(code)) for code in plan.shortcuts}
    original = _encoded(data[plan.shortcuts[0]], "original_dev", tokenizer, plan).chosen(plan.path_rows, folder.seed)
    synthetic = {
        code: _encoded(found, "synthetic_dev", tokenizer, plan).chosen(plan.path_rows, folder.seed)
        for code, found in data.items()
    }
    models = {code: _model(folder.model(code)) for code in plan.shortcuts}
    paths = []
    for a, b in permutations(plan.shortcuts, 2):
        ends = {a: synthetic[a], b: synthetic[b]}
        if plan.shortcuts.index(a) < plan.shortcuts.index(b):
            note(f"seed {folder.seed}: walking from {a} to {b}")
            paths.append(_walk(plan, (a, b), (models[a], models[b]), {ORIGINAL: original, **ends}))
        note(f"seed {folder.seed}: walking from {a} in a random direction, as far as to {b}")
        control = random_direction(models[a], models[b], seed=keyed(folder.seed, a, b), only_moved=True)
        found = _walk(plan, (a, RANDOM), (models[a], control), {ORIGINAL: original, a: synthetic[a]})
        paths.append(found | {"as_far_as": b})
    _write(folder.paths, {"paths": paths})


def _walk(
    plan: Plan, names: tuple[str, str], models: tuple[Any, Any], sets: Mapping[str, ScoredRows]
) -> dict[str, Any]:
    accuracy: dict[str, list[float]] = {name: [] for name in sets}
    points = interpolation_path(points=plan.path_points)
    for weights in points:
        with fused_at(models, weights) as model:
            for name, rows in sets.items():
                accuracy[name].append(score(model, rows).accuracy)
    return {"from": names[0], "to": names[1], "points": [weights[1] for weights in points], "accuracy": accuracy}


def _encoded(data: ShortcutData, split: str, tokenizer: Any, plan: Plan) -> ScoredRows:
    settings = data.record["settings"]
    rows = data[split]
    return encoded_rows(rows, settings["text_column"], settings["label_column"], tokenizer, plan.max_length)


def _tokenizer(folder: SeedFolder) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder.model(START))


def _model(place: Path) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(place)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _write(place: Path, record: Mapping[str, Any]) -> None:
    partial = place.with_name(f".{place.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(place)
