"""What models of a study are scored with: classifiers as they lie in the run folder, encoded rows, accuracies."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.data.batching import Encoded, TokenBatches, encode
from commonweight.data.shortcuts import ShortcutData
from commonweight.data.table import choose_rows
from commonweight.fusion.modules import fused_at
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.shortcuts.plan import ORIGINAL, START

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def load_classifier(place: Path, *, trust: bool = False) -> Any:
    """Load a model of the study."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=trust)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def scored_sets(plan: Plan, folder: SeedFolder, part: str) -> dict[str, ScoredRows]:
    """Encode the sets that models are scored on."""
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
    """Encode the development rows that are scored along paths."""
    return {name: rows.chosen(plan.path_rows, folder.seed) for name, rows in scored_sets(plan, folder, "dev").items()}


def accuracies(
    models: Sequence[Any], points: Iterable[Sequence[float]], sets: Mapping[str, ScoredRows]
) -> dict[str, list[float]]:
    """Score the fusions of models at many points."""
    found: dict[str, list[float]] = {name: [] for name in sets}
    for weights in points:
        with fused_at(models, weights) as model:
            for name, rows in sets.items():
                found[name].append(score(model, rows).accuracy)
    return found


def read_written(place: Path) -> Any:
    """Read a JSON file of the study."""
    text = written_text(place)
    try:
        return json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"{place} is damaged ({error}); remove it, and run the study again") from error


def written_text(place: Path) -> str:
    """Read a file of the study."""
    if not place.is_file():
        raise UsageError(f"{place} is not there yet: run the earlier steps of the study first")
    return place.read_text(encoding="utf-8")


def write_record(place: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    partial = place.with_name(f".{place.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(place)


BATCH = 128


@dataclass(frozen=True)
class Score:
    """How well a model does on rows."""

    accuracy: float
    """From 0 to 1."""

    loss: float
    """Mean cross-entropy in nats."""


@dataclass(frozen=True)
class ScoredRows:
    """Encoded rows that models are scored on."""

    rows: Sequence[Encoded]
    pad_id: int

    @property
    def constant(self) -> float:
        """Accuracy of the best constant answer."""
        return max(Counter(row.label for row in self.rows).values()) / len(self.rows)

    def chosen(self, count: int | None, seed: int) -> ScoredRows:
        """Choose some rows."""
        if count is None or count >= len(self.rows):
            return self
        return ScoredRows([self.rows[i] for i in choose_rows(len(self.rows), count, seed)], self.pad_id)


def encoded_rows(rows: Any, text: str, label: str, tokenizer: Any, max_length: int) -> ScoredRows:
    """Tokenise rows to be scored."""
    accepted = {"input_ids", "attention_mask", "token_type_ids"} & set(tokenizer.model_input_names)
    texts = [(value,) for value in rows[text]]
    found, _ = encode(tokenizer, texts, range(len(texts)), list(rows[label]), accepts=accepted, max_length=max_length)
    return ScoredRows(found, tokenizer.pad_token_id)


def score(model: Any, scored: ScoredRows) -> Score:
    """Score a classifier."""
    model.eval()
    device = next(model.parameters()).device
    right, loss = 0, 0.0
    with torch.inference_mode():
        for batch in TokenBatches(scored.rows, BATCH, scored.pad_id, device=device):
            labels = batch.pop("labels")
            del batch["source_row"]
            logits = model(**batch).logits.float()
            right += int((logits.argmax(-1) == labels).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return Score(right / len(scored.rows), loss / len(scored.rows))
