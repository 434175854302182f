"""What models of a study are scored with: classifiers as they lie in the run folder, encoded rows, accuracies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commonweight.data.shortcuts import ShortcutData
from commonweight.decision.in_place import fused_at
from commonweight.errors import IntegrityError, UsageError
from commonweight.nn.checkpoint import quiet_transformers
from commonweight.studies.scores import ScoredRows, encoded_rows, score
from commonweight.studies.shortcuts.plan import ORIGINAL, START

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def load_classifier(place: Path, *, trust: bool = False) -> Any:
    """Load a model of the study.

    Args:
        place: Its folder.
        trust: Whether code that comes with it may be run.

    Returns:
        The classifier, on the GPU if there is one.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=trust)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def scored_sets(plan: Plan, folder: SeedFolder, part: str) -> dict[str, ScoredRows]:
    """Encode the sets that models are scored on.

    Args:
        plan: The shortcuts, and the length of texts.
        folder: The seed, its rows there.
        part: ``dev`` or ``test``.

    Returns:
        ``original``, of the first shortcut's data, and each shortcut's synthetic rows under its code.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder.model(START), trust_remote_code=plan.trust_remote_code)
    sets = {}
    for code in plan.shortcuts:
        data = ShortcutData.load(folder.data(code))
        settings = data.record["settings"]
        wanted = {ORIGINAL: f"original_{part}"} if code == plan.shortcuts[0] else {}
        for name, split in (wanted | {code: f"synthetic_{part}"}).items():
            columns = settings["text_column"], settings["label_column"]
            sets[name] = encoded_rows(data[split], *columns, tokenizer, plan.max_length)
    return sets


def path_sets(plan: Plan, folder: SeedFolder) -> dict[str, ScoredRows]:
    """Encode the development rows that are scored along paths.

    Args:
        plan: How many.
        folder: The seed, its rows there.

    Returns:
        As :func:`scored_sets`, with no more rows than the plan's ``path_rows`` in each.
    """
    return {name: rows.chosen(plan.path_rows, folder.seed) for name, rows in scored_sets(plan, folder, "dev").items()}


def accuracies(
    models: Sequence[Any], points: Iterable[Sequence[float]], sets: Mapping[str, ScoredRows]
) -> dict[str, list[float]]:
    """Score the fusions of models at many points.

    Args:
        models: The models, in memory.
        points: Weights to average them with.
        sets: What is scored.

    Returns:
        Set -> accuracy at every point.
    """
    found: dict[str, list[float]] = {name: [] for name in sets}
    for weights in points:
        with fused_at(models, weights) as model:
            for name, rows in sets.items():
                found[name].append(score(model, rows).accuracy)
    return found


def read_written(place: Path) -> Any:
    """Read a JSON file of the study.

    Args:
        place: The file.

    Returns:
        What it holds.

    Raises:
        IntegrityError: If it is damaged.
        UsageError: If it is not there.
    """
    text = written_text(place)
    try:
        return json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"{place} is damaged ({error}); remove it, and run the study again") from error


def written_text(place: Path) -> str:
    """Read a file of the study.

    Args:
        place: The file.

    Returns:
        Its text.

    Raises:
        UsageError: If it is not there.
    """
    if not place.is_file():
        raise UsageError(f"{place} is not there yet: run the earlier steps of the study first")
    return place.read_text(encoding="utf-8")


def write_record(place: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Args:
        place: The file.
        record: What it holds.
    """
    partial = place.with_name(f".{place.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(place)
