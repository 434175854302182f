"""A tiny BERT classifier over the words of the review grammar: made and trained without any download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.progress import track
from commonweight.data.batching import Encoded, TokenBatches, encode
from commonweight.data.reviews import LABELS, WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.data.reviews import Review

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LONGEST = 24
LAYERS, WIDTH, HEADS = 3, 64, 4
BATCH, LEARNING_RATE = 32, 5e-4


def make_tokenizer() -> Any:
    """Make a word-level tokenizer that knows exactly the words of the grammar."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(sign, vocabulary[sign]) for sign in ("[CLS]", "[SEP]")]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **names)


def make_start(seed: int) -> Any:
    """Make an untrained classifier; the random state of the process is left as it was."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LONGEST,
        type_vocab_size=1,
        pad_token_id=0,
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForSequenceClassification(config)


def encode_reviews(tokenizer: Any, rows: Sequence[Review]) -> list[Encoded]:
    """Tokenise reviews."""
    texts = [(row["text"],) for row in rows]
    numbers, labels = [row["source_row"] for row in rows], [row["label"] for row in rows]
    return encode(tokenizer, texts, numbers, labels, accepts={"input_ids", "attention_mask"})[0]


def train(model: Any, rows: Sequence[Encoded], *, steps: int, seed: int) -> None:
    """Train a classifier in place: AdamW, warm-up over a tenth of the steps, then linear decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))
    )
    order = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    model.train()
    for _ in track(range(steps), "training an encoder", unit="step"):
        if len(waiting) < BATCH:
            waiting = torch.randperm(len(rows), generator=order).tolist()
        chosen, waiting = [rows[i] for i in waiting[:BATCH]], waiting[BATCH:]
        (batch,) = TokenBatches(chosen, BATCH, pad_id=0)
        del batch["source_row"]
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint: configuration, ``safetensors``, tokenizer."""
    from commonweight.models.checkpoint import quiet_transformers

    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
