"""How well models do on rows: accuracy and loss, beside what a constant answer would get."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from commonweight.data.batching import Encoded, TokenBatches, encode
from commonweight.data.table import choose_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        """Choose some rows.

        Args:
            count: How many; None, or more than there are, for all.
            seed: Names the choice; sets of equal length choose rows at the same places.

        Returns:
            These rows.
        """
        if count is None or count >= len(self.rows):
            return self
        return ScoredRows([self.rows[i] for i in choose_rows(len(self.rows), count, seed)], self.pad_id)


def encoded_rows(rows: Any, text: str, label: str, tokenizer: Any, max_length: int) -> ScoredRows:
    """Tokenise rows to be scored.

    Args:
        rows: A ``datasets.Dataset``.
        text: Column of texts.
        label: Column of class numbers.
        tokenizer: The models' tokenizer.
        max_length: Texts are cut to so many tokens, as in training.

    Returns:
        The rows.
    """
    accepted = {"input_ids", "attention_mask", "token_type_ids"} & set(tokenizer.model_input_names)
    texts = [(value,) for value in rows[text]]
    found, _ = encode(tokenizer, texts, range(len(texts)), list(rows[label]), accepts=accepted, max_length=max_length)
    return ScoredRows(found, tokenizer.pad_token_id)


def score(model: Any, scored: ScoredRows) -> Score:
    """Score a classifier.

    Args:
        model: The classifier; run in eval mode and left in it.
        scored: The rows.

    Returns:
        Accuracy and loss.
    """
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
