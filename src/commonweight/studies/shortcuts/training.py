"""Fine-tuning by the Hugging Face ``Trainer``: its checkpoints, its resuming, its devices."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import torch

from commonweight.errors import MeasurementError
from commonweight.nn.checkpoint import quiet_transformers
from commonweight.place import replacing
from commonweight.studies.shortcuts.plan import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan

CHECKPOINTS = 4
"""How often a training is saved, so that it can be resumed."""


def fine_tune(start: Path, rows: Any, text: str, label: str, plan: Plan, seed: int, place: Path, *, bar: bool) -> None:
    """Fine-tune a checkpoint; a training that was interrupted goes on from its last checkpoint.

    Args:
        start: The starting checkpoint.
        rows: Training rows, a ``datasets.Dataset``.
        text: Column of texts.
        label: Column of class numbers.
        plan: Epochs, learning rate, batch size and length.
        seed: Names the order of the rows and the dropout.
        place: The folder to be made; beside it lies the unfinished training.
        bar: Show a progress bar on stderr.

    Raises:
        MeasurementError: If the loss became nan or infinite.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer

    unfinished = place.with_name(f".{place.name}.training")
    with quiet_transformers(), torch.random.fork_rng():
        tokenizer: Any = AutoTokenizer.from_pretrained(start)
        model: Any = AutoModelForSequenceClassification.from_pretrained(start)
        encoded = rows.map(
            lambda some: tokenizer(some[text], truncation=True, max_length=plan.max_length) | {"labels": some[label]},
            batched=True,
            remove_columns=rows.column_names,
            load_from_cache_file=False,
            keep_in_memory=True,
        )
        steps = -(-len(encoded) // plan.batch_size) * plan.epochs
        arguments = _arguments(plan, seed, unfinished, save_every=max(1, round(steps / CHECKPOINTS)), bar=bar)
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=encoded, data_collator=collator)
        result = trainer.train(resume_from_checkpoint=any(unfinished.glob("checkpoint-*")) or None)
        if not result.training_loss < float("inf"):
            raise MeasurementError(
                f"training {place.name} gave a loss of {result.training_loss}: lower the learning rate"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, CHECKPOINT) as folder:
            trainer.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    shutil.rmtree(unfinished, ignore_errors=True)


def _arguments(plan: Plan, seed: int, folder: Path, *, save_every: int, bar: bool) -> Any:
    from transformers import TrainingArguments

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in known
        else {"group_by_length": True}
    )
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.batch_size,
        num_train_epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=not bar,
        dataloader_pin_memory=torch.cuda.is_available(),
        **by_length,
    )
