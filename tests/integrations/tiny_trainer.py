"""A tiny BERT and a Trainer of it."""

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "num_labels": 2,
}


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES))


def some_rows(count=16):
    return [{"input_ids": torch.arange(4) + k, "labels": k % 2} for k in range(count)]


def trainer_of(model, folder, *, kind=Trainer, rows=None, more=None, **options):
    usual = {"max_steps": 4, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "save_strategy": "no"}
    usual |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "seed": 3}
    rows = some_rows() if rows is None else rows
    arguments = TrainingArguments(str(folder), **usual | options)
    trainer = kind(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:8], **(more or {}))
    trainer.remove_callback(PrinterCallback)
    return trainer
