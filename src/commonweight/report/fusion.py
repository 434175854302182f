"""What a fusion of checkpoints answers, in one screen and in every form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from commonweight.base.records import without_nan
from commonweight.base.text import Grid, csv_text, number
from commonweight.fusion.folders import blocks, content_hash, models_grid, settings_and_counts, types_of
from commonweight.fusion.methods import METHODS
from commonweight.models.load import short_name
from commonweight.report.answer import Answer, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commonweight.interventions.measure import ModelScore

HASH_DIGITS = 12
"""Of a SHA-256; the other forms have all."""

UNTESTED = "Nothing was measured: a fusion forgets in silence. Give --data to score the models and their fusion."


COLUMNS = ("model", "weight", "sha256", "data", "rows", "accuracy", "log_likelihood")


def result(record: Mapping[str, Any], folder: str | None, scores: Sequence[ModelScore] = ()) -> Result:
    """Give the record of a fusion, or of one that would be, and what was scored, in every form."""
    found = answer(record, folder, scores)
    more = {"scores": [asdict(each) for each in scores]} if scores else {}
    plain = without_nan({"answer": found.record(), **record, **more})
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return Result(found, blocks(record, folder), text, csv_text(COLUMNS, _rows(record, scores)))


def answer(record: Mapping[str, Any], folder: str | None, scores: Sequence[ModelScore] = ()) -> Answer:
    """Say what was fused, or without a folder what would be, and where it was scored what was lost."""
    names = [short_name(model["name"]) for model in record["models"]]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"{names[0]} alone"
    method = METHODS[record["method"]].title
    size = f"{record['tensors']} tensors of {record['entries']:,} numbers ({types_of(record)})"
    said = ", ".join(" ".join(pair) for pair in settings_and_counts(record))
    made = (
        f"{'Fused' if folder else 'It would be fused'} by {method}{f', {said}' if said else ''}: {size}. "
        f"{record['shared_initialisation']['sentence']}"
    )
    rest = ("the checkpoint, which loads with from_pretrained", "fusion.json the record", "README.md the model card")
    return Answer(
        f"What is the fusion of {listed}{', and what was lost?' if scores else '?'}",
        f"{_lost(scores)}{made}",
        scores_grid(scores) if scores else models_grid(record, HASH_DIGITS),
        (*(() if scores else (UNTESTED,)), *record["notes"]),
        rest if folder else (),
    )


def _rows(record: Mapping[str, Any], scores: Sequence[ModelScore]) -> Iterator[tuple[object, ...]]:
    """A row for each model, or for each data set that it was scored on; the fusion comes last."""
    models = [(model["weight"], content_hash(model)) for model in record["models"]]
    if not scores:
        for model, facts in zip(record["models"], models, strict=True):
            yield short_name(model["name"]), *facts, *[None] * 4
    names = dict.fromkeys(each.model for each in scores)
    of = dict(zip(names, [*models, (None, None)], strict=False))
    for each in scores:
        yield each.model, *of[each.model], each.data, each.rows, each.accuracy, each.log_likelihood


def _lost(scores: Sequence[ModelScore]) -> str:
    """Compare the fusion, which was scored last, with the best of the models, on each data set."""
    said = ""
    for data in dict.fromkeys(each.data for each in scores):
        *models, fused = (each for each in scores if each.data == data)
        by_accuracy = not any(math.isnan(each.accuracy) for each in (*models, fused))
        what = "accuracy" if by_accuracy else "log_likelihood"
        best = max(models, key=lambda each: getattr(each, what))
        unit = "accuracy" if by_accuracy else "mean log-likelihood"
        said += (
            f"On {data} the fusion has {unit} {number(getattr(fused, what), 3)}, the best of the models, {best.model}, "
            f"{number(getattr(best, what), 3)}. "
        )
    return said


def scores_grid(scores: Sequence[ModelScore]) -> Grid:
    """Lay out what the models and their fusion scored."""
    rows = tuple(
        (each.model, each.data, str(each.rows), number(each.accuracy, 3), number(each.log_likelihood, 3))
        for each in scores
    )
    return Grid("Scores", ("model", "data", "rows", "accuracy", "log-likelihood"), rows)
