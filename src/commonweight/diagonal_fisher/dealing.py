"""Deal batches out into one stream per fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from commonweight.base.errors import UsageError
from commonweight.diagonal_fisher.batch import LABELS, Batch, BatchReader, map_leaves
from commonweight.footprints.folds import FoldSorted, fold_of


def by_fold(batches: Iterable[Any], folds: int) -> Iterator[Iterator[Batch]]:
    """Give one stream of batches per fold; batches that mix folds are held in memory and dealt out."""
    handed = getattr(batches, "iterable", batches)
    if isinstance(handed, Mapping):
        raise UsageError("expected an iterable of batches, got a single mapping: wrap it in a list")
    if isinstance(handed, Dataset) and not isinstance(handed, IterableDataset):
        raise UsageError(
            f"expected an iterable of batches, got {type(handed).__name__}, a data set of single examples: wrap it in "
            "torch.utils.data.DataLoader"
        )
    if not hasattr(handed, "__iter__") and not hasattr(handed, "__getitem__"):
        raise UsageError(
            f"expected an iterable of batches, got {type(handed).__name__}: give a DataLoader or a list of batches"
        )
    read = _read(batches, by_position=isinstance(handed, FoldSorted) and handed.by_position)
    if folds == 1:
        yield read
        return
    if isinstance(handed, FoldSorted):
        if handed.folds != folds:
            raise UsageError(f"the batches are FoldSorted for {handed.folds} folds, and folds={folds} was asked for")
        yield from _promised(read, folds)
        return
    dealt: list[list[tuple[Batch, list[int]]]] = [[] for _ in range(folds)]
    largest = 1
    shared: frozenset[str] = frozenset()
    for batch in read:
        largest = max(largest, batch.size)
        shared |= batch.shared
        for fold in range(folds):
            rows = [i for i, row in enumerate(batch.source_rows) if fold_of(row, folds) == fold]
            if rows:
                dealt[fold].append((batch, rows))
    for held in dealt:
        # Only all batches together tell what belongs to a batch as a whole.
        yield _joined((replace(batch, shared=shared).select(rows) for batch, rows in held), largest)
        held.clear()


def _read(batches: Iterable[Any], *, by_position: bool) -> Iterator[Batch]:
    reader = BatchReader()
    for raw in batches:
        batch = reader.read(raw)
        yield replace(batch, numbered=False) if by_position else batch


def _promised(batches: Iterator[Batch], folds: int) -> Iterator[Iterator[Batch]]:
    waiting: list[Batch] = []

    def stream(fold: int) -> Iterator[Batch]:
        while batch := (waiting.pop() if waiting else next(batches, None)):
            here = {fold_of(row, folds) for row in batch.source_rows}
            if min(here) > fold and len(here) == 1:
                waiting.append(batch)
                return
            if here != {fold}:
                raise UsageError(
                    f"FoldSorted batches must come fold by fold, each within one fold: got folds {sorted(here)} "
                    f"while fold {fold} was measured"
                )
            yield batch

    for fold in range(folds):
        yield stream(fold)


def _joined(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Join small batches of equal shapes up to a batch size, so that folds cost no speed."""
    held: list[Batch] = []
    for batch in batches:
        full = sum(part.size for part in held) + batch.size > size
        if held and (full or not _joinable(held[0], batch)):
            yield _join(held)
            held = []
        held.append(batch)
    if held:
        yield _join(held)


def _joinable(a: Batch, b: Batch) -> bool:
    """Whether two batches have the same leaves: one row per example, of equal shape and type; equal plain values."""
    leaves_a, leaves_b = list(a.leaves()), list(b.leaves())
    if [path for path, _ in leaves_a] != [path for path, _ in leaves_b]:
        return False
    for (path, x), (_, y) in zip(leaves_a, leaves_b, strict=True):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            rowwise = a.is_rowwise(path, x) and b.is_rowwise(path, y)
            if not rowwise or (x.shape[1:], x.dtype) != (y.shape[1:], y.dtype):
                return False
        elif not _same(x, y):
            return False
    return True


def _join(batches: list[Batch]) -> Batch:
    first = batches[0]
    if len(batches) == 1:
        return first
    leaves = [dict(batch.leaves()) for batch in batches]

    def join(_: Tensor, path: str) -> Tensor:
        return torch.cat([leaf[path] for leaf in leaves])

    return Batch(
        map_leaves(first.inputs, join),
        map_leaves(first.labels, join, LABELS),
        tuple(row for batch in batches for row in batch.source_rows),
        first.is_mapping,
        first.shared,
        all(batch.numbered for batch in batches),
    )


def _same(x: Any, y: Any) -> bool:
    try:
        return type(x) is type(y) and bool(x == y)
    except (ValueError, RuntimeError):  # an array
        return False
