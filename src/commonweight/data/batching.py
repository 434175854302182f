"""Rows become batches: of tokens for Hugging Face models, of float tensors for plain torch modules.

Batches of tokens are ordered by fold and length, so that little is padded; batches of tensors by fold, and keep the
data's order within it. The source row travels with every row, so the order changes nothing but speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

IGNORED = -100
"""The label Hugging Face losses leave out."""

MOST_UNKNOWN = 0.5
"""Above this share of unknown tokens, tokenizer and texts do not belong together."""


@dataclass(frozen=True)
class Encoded:
    """One tokenised row."""

    source_row: int
    tokens: dict[str, list[int]]
    """``input_ids`` and, where the model takes them, ``attention_mask`` and ``token_type_ids``; without padding."""

    label: Any = None
    """A class, a number or a list of numbers; None for a language model, whose labels are its own tokens."""

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class TokenBatches:
    """Batches of tokens, padded on the right to the longest row of each batch; iterable again and again."""

    rows: Sequence[Encoded]
    batch_size: int
    pad_id: int | None
    """Token id written into padding; None if the tokenizer has none, and then only equally long rows share a batch."""

    fold_of: Callable[[int], int] | None = None
    """The fold of a source row; given, no batch crosses a fold and folds come one after the other."""

    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        fold_of = self.fold_of or (lambda _: 0)
        ordered = sorted(self.rows, key=lambda row: (fold_of(row.source_row), -row.length, row.source_row))
        object.__setattr__(self, "rows", ordered)

    def __len__(self) -> int:
        return len(self._spans())

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start, stop in self._spans():
            yield self._collate(self.rows[start:stop])

    def with_batch_size(self, batch_size: int) -> TokenBatches:
        """Cut the same rows into batches of another size."""
        return replace(self, batch_size=batch_size)

    def _spans(self) -> list[tuple[int, int]]:
        keys = [
            (self.fold_of(row.source_row) if self.fold_of else 0, 0 if self.pad_id is not None else row.length)
            for row in self.rows
        ]
        spans: list[tuple[int, int]] = []
        for position, key in enumerate(keys):
            start = spans[-1][0] if spans else 0
            if not spans or keys[start] != key or position - start == self.batch_size:
                spans.append((position, position + 1))
            else:
                spans[-1] = (start, position + 1)
        return spans

    def _collate(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        width = max(row.length for row in rows)
        fill = {"input_ids": self.pad_id if self.pad_id is not None else 0}
        batch = {
            key: torch.tensor([row.tokens[key] + [fill.get(key, 0)] * (width - row.length) for row in rows])
            for key in rows[0].tokens
        }
        if rows[0].label is None:
            batch["labels"] = torch.tensor([row.tokens["input_ids"] + [IGNORED] * (width - row.length) for row in rows])
        else:
            batch["labels"] = torch.tensor([row.label for row in rows])
        batch = {key: tensor.to(self.device) for key, tensor in batch.items()}
        batch["source_row"] = torch.tensor([row.source_row for row in rows])
        return batch


class SourcedPair(NamedTuple):
    """Inputs and targets of a batch, with the numbers of its rows in the data set."""

    inputs: Tensor
    """``[rows, ...]``."""

    targets: Tensor
    """``[rows, ...]``."""

    source_row: Tensor
    """``[rows]``, whole numbers."""


@dataclass(frozen=True)
class TensorBatches:
    """Float inputs with targets, in the order of the data within each fold; iterable again and again."""

    inputs: Tensor
    targets: Tensor
    batch_size: int
    device: torch.device | str = "cpu"
    source_rows: Sequence[int] = ()
    """Per row its number in the data set; none numbers them 0, 1, …"""

    fold_of: Callable[[int], int] | None = None
    """The fold of a source row; given, no batch crosses a fold and folds come one after the other."""

    def __len__(self) -> int:
        return len(self._spans())

    def __iter__(self) -> Iterator[SourcedPair]:
        rows = torch.tensor(self._source_rows())
        for chosen in self._spans():
            yield SourcedPair(self.inputs[chosen].to(self.device), self.targets[chosen].to(self.device), rows[chosen])

    def with_batch_size(self, batch_size: int) -> TensorBatches:
        """Cut the same rows into batches of another size."""
        return replace(self, batch_size=batch_size)

    def _source_rows(self) -> list[int]:
        return list(self.source_rows or range(len(self.inputs)))

    def _spans(self) -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for position, row in enumerate(self._source_rows()):
            members.setdefault(self.fold_of(row) if self.fold_of else 0, []).append(position)
        size = self.batch_size
        return [
            members[fold][start : start + size]
            for fold in sorted(members)
            for start in range(0, len(members[fold]), size)
        ]


def encode(
    tokenizer: Any,
    rows: Sequence[tuple[str, ...]],
    source_rows: Sequence[int],
    labels: Sequence[Any] | None,
    *,
    accepts: Collection[str],
    max_length: int | None = None,
    vocabulary: int | None = None,
) -> tuple[list[Encoded], int]:
    """Tokenise rows of text."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    if max_length is not None:
        _check_room(tokenizer, max_length, is_pair=len(columns) > 1)
        columns = [[_beginning(tokenizer, text, max_length) for text in column] for column in columns]
    encoded = tokenizer(*columns, padding=False, verbose=False)
    too_long = 0
    if max_length is not None:
        too_long = sum(len(ids) > max_length for ids in encoded["input_ids"])
        if too_long:
            encoded = tokenizer(*columns, padding=False, truncation=True, max_length=max_length, verbose=False)
    _check_known(tokenizer, encoded["input_ids"])
    _check_fit(encoded["input_ids"], source_rows, max_length, vocabulary)
    keys = [key for key in ("input_ids", "attention_mask", "token_type_ids") if key in encoded and key in accepts]
    found: list[Encoded] = []
    for position, row in enumerate(source_rows):
        tokens = {key: list(encoded[key][position]) for key in keys}
        label = None if labels is None else labels[position]
        least = 1 if labels is not None else 2
        if len(tokens["input_ids"]) < least:
            raise UsageError(
                f"row {row} has {len(tokens['input_ids'])} tokens, expected at least {least}"
                f"{' (a language model predicts every token but the first)' if least > 1 else ''}; remove the row"
            )
        found.append(Encoded(row, tokens, label))
    return found, too_long


LONG = 64
"""Characters per token that is kept, above which a text is cut before it is tokenised."""


def _beginning(tokenizer: Any, text: str, max_length: int) -> str:
    """Take as much of a very long text as surely gives its first ``max_length`` tokens."""
    size = LONG * max_length
    while size < len(text) and tokenizer.truncation_side == "right":
        stop = text.rfind(" ", size // 2, size)  # between words, where what follows changes no token before
        part = text[: stop if stop > 0 else size]
        if len(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]) >= 2 * max_length:
            return part
        size *= 4
    return text


def _check_room(tokenizer: Any, max_length: int, *, is_pair: bool) -> None:
    special = tokenizer.num_special_tokens_to_add(pair=is_pair)
    if max_length <= special:
        raise UsageError(
            f"{{argument}} {max_length} leaves no room for text: the tokenizer puts {special} tokens of its own around "
            f"every {'pair' if is_pair else 'text'}; give at least {special + 1}",
            argument="max_length",
        )


def _check_fit(
    rows: Sequence[Sequence[int]], source_rows: Sequence[int], max_length: int | None, vocabulary: int | None
) -> None:
    for row, tokens in zip(source_rows, rows, strict=True):
        if max_length is not None and len(tokens) > max_length:
            raise UsageError(
                f"row {row} still has {len(tokens)} tokens after it was cut to {max_length}: the tokenizer does not "
                "cut; shorten the row, or give a larger {max_length}",
                max_length=None,
            )
        if vocabulary is not None and max(tokens, default=0) >= vocabulary:
            raise UsageError(
                f"row {row} has token {max(tokens)}, and the model knows 0..{vocabulary - 1}: the tokenizer was not "
                "made for this model; give the model's own with {tokenizer}",
                tokenizer=None,
            )


def _check_known(tokenizer: Any, rows: Sequence[Sequence[int]]) -> None:
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    special = set(tokenizer.all_special_ids) - {unknown}
    ordinary = [token for row in rows for token in row if token not in special]
    share = ordinary.count(unknown) / max(1, len(ordinary))
    if share > MOST_UNKNOWN:
        raise UsageError(
            f"{share:.0%} of the tokens are unknown to the tokenizer; it was not made for these texts. Give the "
            "model's own tokenizer with {tokenizer}, or check {text_column}",
            tokenizer=None,
            text_column=None,
        )


def stack_inputs(columns: dict[str, list[Any]], source_rows: Sequence[int]) -> Tensor:
    """Make one float tensor of numeric columns, or of one column of nested lists or arrays."""
    stacked: list[Tensor] = []
    for name, values in columns.items():
        tensors = [torch.as_tensor(value, dtype=torch.float32) for value in values]
        for row, tensor in zip(source_rows, tensors, strict=True):
            if tensor.shape != tensors[0].shape:
                raise UsageError(
                    f"row {row} has shape {list(tensor.shape)} in column {name!r}, expected {list(tensors[0].shape)} "
                    "like the first row; bring the values to one shape"
                )
        stacked.append(torch.stack(tensors))
    if len(stacked) == 1:
        only = stacked[0]
        return only if only.dim() > 1 else only[:, None]
    for name, tensor in zip(columns, stacked, strict=True):
        if tensor.dim() > 1:
            raise UsageError(
                f"column {name!r} holds values of shape {list(tensor.shape[1:])}; several of {{argument}} must each "
                "hold plain numbers, or give one column of lists or images",
                argument="input_column",
            )
    return torch.stack(stacked, dim=1)
