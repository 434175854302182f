"""A model meets its data: which columns it reads, and the batches it is measured on."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.base.text import Note, silent
from commonweight.data import columns
from commonweight.data.batching import TensorBatches, TokenBatches, encode, stack_inputs
from commonweight.footprints.folds import fold_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from commonweight.data.batching import Encoded
    from commonweight.data.table import Table
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import ColumnOptions

UNLIMITED = 1_000_000
"""Tokenizers without a limit say so with an absurd number above this."""


@dataclass(frozen=True)
class Prepared:
    """Batches, and what to record about them."""

    batches: TokenBatches | TensorBatches
    columns: dict[str, Any]


def prepare(
    loaded: LoadedModel, table: Table, options: ColumnOptions, *, folds: int = 1, note: Note = silent
) -> Prepared:
    """Make batches of size 1 (``batches.with_batch_size`` changes that) of a data set for a model."""
    device = next((parameter.device for parameter in loaded.model.parameters()), torch.device("cpu"))
    if loaded.task is None:
        return _tensors(loaded, table, options, folds, device)
    if options.input_column:
        raise UsageError(
            "{argument} is for plain torch modules (module:function); a text model takes {text_column}",
            argument="input_column",
            text_column=None,
        )
    return _tokens(loaded, table, options, folds, device, note)


def check_columns(table: Table, options: ColumnOptions) -> None:
    """Check that the columns that are named are there: this needs no model."""
    for argument in ("text_column", "input_column"):
        for name in getattr(options, argument):
            columns.existing(table, name, argument)
    if options.label_column is not None:
        columns.existing(table, options.label_column, "label_column")


def _tensors(loaded: LoadedModel, table: Table, options: ColumnOptions, folds: int, device: torch.device) -> Prepared:
    if not options.input_column:
        raise UsageError(
            f"{loaded.identity['name']} is a plain torch module; say what it reads with {{argument}} (one column of "
            f"lists or images, or several of numbers). {table.name} has {', '.join(map(repr, table.columns))}",
            argument="input_column",
        )
    for name in ("text_column", "max_length"):
        if getattr(options, name):
            what = f"{loaded.identity['name']} is a plain torch module"
            raise UsageError(f"{{argument}} is for text models, and {what}", argument=name)
    label = columns.label_column(table, options.label_column)
    inputs = stack_inputs({name: columns.numbers(table, name) for name in options.input_column}, table.source_rows)
    targets = torch.tensor(columns.numbers(table, label))
    precision = next((p.dtype for p in loaded.model.parameters() if p.is_floating_point()), torch.float32)
    if targets.is_floating_point():
        targets = targets.to(precision)
    batches = TensorBatches(inputs.to(precision), targets, 1, device, table.source_rows, _fold_map(folds))
    _check_reads(loaded, batches.inputs[:1].to(device), options.input_column)
    return Prepared(batches, {"inputs": list(options.input_column), "label": label})


def _tokens(
    loaded: LoadedModel, table: Table, options: ColumnOptions, folds: int, device: torch.device, note: Note
) -> Prepared:
    config = getattr(loaded.model, "config", None)
    limit = length_limit(config, loaded.tokenizer, options.max_length)
    label = None if loaded.task == "causal_lm" else columns.label_column(table, options.label_column)
    text = columns.text_columns(table, options.text_column, label=label or options.label_column)
    labels: list[Any] | None = None
    if label is not None and loaded.task == "classification":
        labels = list(
            columns.class_labels(
                table, label, classes=getattr(config, "num_labels", None), label2id=getattr(config, "label2id", None)
            )
        )
    elif label is not None:
        labels = _as_floats(columns.numbers(table, label))
    rows, cut = encode(
        loaded.tokenizer,
        columns.texts(table, text),
        table.source_rows,
        labels,
        accepts=_accepted(loaded.model),
        max_length=limit,
        vocabulary=_vocabulary(loaded.model),
    )
    batches = TokenBatches(rows, 1, _padding(loaded, rows), _fold_map(folds), device)
    if cut:
        note(f"{cut} of {len(rows)} rows of {table.name} were cut to {limit} tokens")
    return Prepared(batches, {"text": list(text), "label": label, "max_length": limit, "rows_cut": cut})


def _padding(loaded: LoadedModel, rows: Sequence[Encoded]) -> int:
    """Choose the token written into padding, which is masked out and to the right of all that is measured."""
    # Some classifiers read the last token that is not their padding. A model that knows of none reads the last token of
    # a row, whatever it is; it gets a padding that no row ends with.
    known = loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id
    if loaded.task == "causal_lm":
        return next(number for number in (*known, 0) if number is not None)
    config: Any = loaded.model.config.get_text_config()  # type: ignore[union-attr,operator]
    if config.pad_token_id is None or not 0 <= config.pad_token_id < (_vocabulary(loaded.model) or math.inf):
        ends = {row.tokens["input_ids"][-1] for row in rows}
        config.pad_token_id = next(number for number in chain(known, count()) if number not in {None, *ends})
    return int(config.pad_token_id)


def _fold_map(folds: int) -> Callable[[int], int] | None:
    return (lambda row: fold_of(row, folds)) if folds > 1 else None


def _check_reads(loaded: LoadedModel, row: torch.Tensor, names: tuple[str, ...]) -> None:
    try:
        with torch.no_grad():
            loaded.model(row)
    except Exception as error:  # whatever a module of the user's own may raise
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UsageError(
            f"{loaded.identity['name']} cannot read rows of shape {list(row.shape[1:])} made of {', '.join(names)}: "
            f"{type(error).__name__}: {reason}. Give as many {{argument}} as the module has inputs, in their order",
            argument="input_column",
        ) from error


def _vocabulary(model: Any) -> int | None:
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):
        return None


def _accepted(model: torch.nn.Module) -> set[str]:
    # An adapter's wrapper hides the arguments of its base.
    base = model.get_base_model() if type(model).__module__.startswith("peft.") else model  # type: ignore[operator]
    return set(inspect.signature(base.forward).parameters)


def length_limit(config: Any, tokenizer: Any, asked: int | None) -> int | None:
    """Find how long texts may be."""
    limits = [
        limit
        for limit in (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
        if isinstance(limit, int) and 0 < limit < UNLIMITED
    ]
    limit = min(limits, default=None)
    if asked is not None and limit is not None and asked > limit:
        raise UsageError(
            f"{{argument}} {asked} is more than the model can read; give at most {limit}", argument="max_length"
        )
    return asked if asked is not None else limit


def _as_floats(values: list[Any]) -> list[Any]:
    return [[float(part) for part in value] if isinstance(value, list) else float(value) for value in values]
