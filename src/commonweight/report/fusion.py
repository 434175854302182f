"""What a fusion of checkpoints answers, in one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.fusion.folders import models_grid, settings_and_counts, types_of
from commonweight.fusion.methods import METHODS
from commonweight.models.load import short_name
from commonweight.report.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH_DIGITS = 12
"""Of a SHA-256; the other forms have all."""

UNTESTED = "Nothing was measured. Score the fused model on everything that these could do: a fusion forgets in silence."


def answer(record: Mapping[str, Any], folder: str | None) -> Answer:
    """Say what was fused, or without a folder what would be."""
    names = [short_name(model["name"]) for model in record["models"]]
    method = METHODS[record["method"]].title
    size = f"{record['tensors']} tensors of {record['entries']:,} numbers ({types_of(record)})"
    said = ", ".join(" ".join(pair) for pair in settings_and_counts(record))
    return Answer(
        f"What is the fusion of {', '.join(names[:-1])} and {names[-1]}?",
        f"{'Fused' if folder else 'It would be fused'} by {method}{f', {said}' if said else ''}: {size}. "
        f"{record['shared_initialisation']['sentence']}",
        models_grid(record, HASH_DIGITS),
        (UNTESTED, *record["notes"]),
        ("the checkpoint, which loads with from_pretrained", "fusion.json the record", "README.md the model card")
        if folder
        else (),
    )
