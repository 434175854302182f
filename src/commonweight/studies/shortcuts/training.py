"""Fine-tuning by the Hugging Face ``Trainer``: its checkpoints, its resuming, its devices."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.folders import check_room, replacing
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.shortcuts.plan import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan

CHECKPOINTS = 4
"""How often a training is saved, so that it can be resumed."""

COPIES = 6
"""Weights, and as much as twice them of the optimizer's state; a new checkpoint is written before the last one goes."""


def fine_tune(start: Path, rows: Any, text: str, label: str, plan: Plan, seed: int, place: Path, *, bar: bool) -> None:
    """Fine-tune a checkpoint; a training that was interrupted goes on from its last checkpoint."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    class Bar(ProgressCallback):  # type: ignore[misc,unused-ignore]
        """The bar alone: the figures that the other one writes at the end are a dict of seconds and operations."""

        def on_log(self, *_: Any, **__: Any) -> None:
            pass

    unfinished = place.with_name(f".{place.name}.training")
    with quiet_transformers(), _random_state_kept():
        tokenizer: Any = AutoTokenizer.from_pretrained(start, trust_remote_code=plan.trust_remote_code)
        model: Any = AutoModelForSequenceClassification.from_pretrained(start, trust_remote_code=plan.trust_remote_code)
        check_room(place, COPIES * sum(weight.numel() * weight.element_size() for weight in model.parameters()))
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
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        trainer.remove_callback(ProgressCallback)
        if bar:
            trainer.add_callback(Bar)
        trainer.train(resume_from_checkpoint=_last_whole(unfinished))
        broken = [name for name, weight in trainer.model.named_parameters() if not weight.isfinite().all()]
        if broken:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise MeasurementError(
                f"training {place.name} left {broken[0]} not finite: start another run with a learning rate below "
                f"{plan.learning_rate:g}"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, CHECKPOINT) as folder:
            trainer.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    shutil.rmtree(unfinished, ignore_errors=True)


def _last_whole(unfinished: Path) -> str | None:
    """Find the newest checkpoint that was written to its end; those that were not are removed."""
    whole: dict[int, Path] = {}
    for folder in unfinished.glob("checkpoint-*"):
        needed = ("config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json")
        is_whole = all((folder / name).is_file() for name in needed) and any(folder.glob("rng_state*.pth"))
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            is_whole = False
        if is_whole and any(folder.glob("*.safetensors")):
            whole[int(folder.name.rpartition("-")[2])] = folder
        else:
            shutil.rmtree(folder)
    return str(whole[max(whole)]) if whole else None


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _arguments(plan: Plan, seed: int, folder: Path, *, save_every: int, bar: bool) -> Any:
    from transformers import TrainingArguments

    devices = max(1, torch.cuda.device_count())
    if plan.batch_size % devices:
        raise UsageError(
            f"a batch of {plan.batch_size} rows cannot be shared out evenly to {devices} GPUs; choose another batch "
            "size, or hide some with CUDA_VISIBLE_DEVICES"
        )
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in known
        else {"group_by_length": True}
    )
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.batch_size // devices,
        logging_nan_inf_filter=False,
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
        **({} if plan.preset == "published" else by_length),
    )
