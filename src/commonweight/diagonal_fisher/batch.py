"""One batch as the engine sees it: inputs for the model, labels, and the source row of every example.

Users hand over what their loader yields: a mapping (``model(**batch)``) or a pair ``(inputs, targets)``, where targets
may be several. Everything that depends on that choice is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import length_hint
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import Dataset, IterableDataset

from commonweight.base.errors import UsageError
from commonweight.base.progress import track
from commonweight.data.batching import SourcedPair
from commonweight.footprints.folds import FoldSorted, fold_of

SOURCE_ROW = "source_row"
"""Reserved key of a mapping, the batch or its inputs: row numbers in the source data, ``[batch]``, integer.

The model does not see it.
"""

LABELS = "labels"

ROWS_EXAMPLE = '{"input": x, "labels": y, "source_row": i} with loss="classification", for a model that takes "input"'


@dataclass(frozen=True)
class Batch:
    """A batch of ``size`` examples."""

    inputs: Any
    """A mapping (keyword arguments), or what the loader gave beside the targets."""

    labels: Any
    """What came with the inputs as labels or targets: a tensor ``[size, ...]``, a nest of several, or None."""

    source_rows: tuple[int, ...]
    """One number per example: it decides the fold and the sampled labels."""

    is_mapping: bool

    shared: frozenset[str] = frozenset()
    """Paths of tensors that belong to the batch as a whole (masks, position ids), even if a length equals ``size``."""

    numbered: bool = False
    """Whether the source rows came with the batch; else they are running numbers."""

    @property
    def signature(self) -> tuple[torch.Size, ...]:
        """Shapes of one example's tensors, padding included."""
        return tuple(tensor.shape[1:] for _, tensor in self.leaves() if isinstance(tensor, Tensor))

    @property
    def uneven(self) -> frozenset[str]:
        """Integer tensors (masks, labels) of which examples have different numbers of entries that count."""
        found = set()
        for path, tensor in self.leaves():
            if not isinstance(tensor, Tensor) or tensor.dim() != 2 or tensor.is_floating_point():
                continue
            if self.is_rowwise(path, tensor):
                counts = (tensor >= 0 if path.startswith(LABELS) else tensor != 0).sum(1)
                if bool((counts != counts[0]).any()):
                    found.add(path)
        return frozenset(found)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.source_rows)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """List the leaves of inputs and labels; paths of labels begin with ``labels``."""
        yield from leaves_of(self.inputs)
        yield from leaves_of(self.labels, LABELS)

    def call(self, model: nn.Module, *, with_labels: bool = False, withhold: bool = False, spread: bool = False) -> Any:
        """Run the model on the inputs."""
        if not isinstance(self.inputs, Mapping):
            return model(*self.inputs) if spread else model(self.inputs)
        known = arguments_of(model)
        taken = {key: value for key, value in self.inputs.items() if known is None or key in known}
        if len(taken) < len(self.inputs) and not (withhold and taken):
            unknown = ", ".join(repr(key) for key in self.inputs if key not in taken)
            raise UsageError(
                f"the batch has {unknown}, and {type(model).__name__}.forward takes {', '.join(known or ())}: name the "
                "columns as its arguments, or drop those that only a loss of your own (outputs, batch) -> [batch] reads"
            )
        wanted = with_labels and self.is_mapping and self.labels is not None and (known is None or LABELS in known)
        return model(**taken, **({LABELS: self.labels} if wanted else {}))

    def original(self) -> Any:
        """Give the batch back in the form it came in, for a loss of the user's own."""
        if self.is_mapping:
            return {**self.inputs, **({} if self.labels is None else {LABELS: self.labels})}
        return self.inputs, self.labels

    def select(self, rows: Sequence[int]) -> Batch:
        """Take some of the examples, their padding kept."""
        positions = torch.tensor(list(rows), dtype=torch.long)

        def pick(tensor: Tensor, path: str) -> Tensor:
            if not self.is_rowwise(path, tensor):
                return tensor
            return tensor.index_select(0, positions.to(tensor.device))

        return replace(
            self,
            inputs=map_leaves(self.inputs, pick),
            labels=map_leaves(self.labels, pick, LABELS),
            source_rows=tuple(self.source_rows[row] for row in rows),
        )

    def is_rowwise(self, path: str, tensor: Tensor) -> bool:
        """Tell whether an input tensor has one row per example."""
        return tensor.dim() > 0 and tensor.shape[0] == self.size and path not in self.shared

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to a device, cut from any graph."""
        return replace(
            self,
            inputs=map_tensors(self.inputs, lambda tensor: _plain(tensor).to(device)),
            labels=map_tensors(self.labels, lambda tensor: _plain(tensor).to(device)),
        )


class BatchReader:
    """Reads what a loader yields, and remembers which tensors belong to a batch as a whole."""

    def __init__(self) -> None:
        self._next_row = 0
        self._shared: set[str] = set()

    def read(self, raw: Any) -> Batch:
        """Read one batch."""
        if isinstance(raw, Mapping):
            parts = dict(raw)
            rows = parts.pop(SOURCE_ROW, None)
            labels = parts.pop(LABELS, None)
            inputs: Any = parts
        elif isinstance(raw, SourcedPair):
            inputs, labels, rows = raw
        elif isinstance(raw, (tuple, list)) and len(raw) == 2:
            inputs, labels = raw
            rows = None
            if isinstance(inputs, Mapping) and SOURCE_ROW in inputs:
                inputs = dict(inputs)
                rows = inputs.pop(SOURCE_ROW)
        else:
            shape = f" of {len(raw)}" if isinstance(raw, (tuple, list)) else ""
            hint = "; wrap a single mapping in a list" if isinstance(raw, str) else ""
            if isinstance(raw, (tuple, list)) and len(raw) == 3:
                hint = f"; row numbers go into a mapping, such as {ROWS_EXAMPLE}"
            raise UsageError(
                f"expected each batch to be a mapping (as for model(**batch)) or a pair (inputs, targets), "
                f"got {type(raw).__name__}{shape}{hint}"
            )
        labels = _targets(labels)
        _check_divisible(inputs, "")
        _check_divisible(labels, LABELS)
        size = _size(inputs, labels)
        if rows is None:
            source_rows = tuple(range(self._next_row, self._next_row + size))
        else:
            source_rows = tuple(int(row) for row in torch.as_tensor(rows).reshape(-1).tolist())
            if len(source_rows) != size:
                raise UsageError(f"{SOURCE_ROW} has {len(source_rows)} entries for a batch of {size} examples")
        self._next_row += size
        for path, leaf in [*leaves_of(inputs), *leaves_of(labels, LABELS)]:
            if isinstance(leaf, Tensor) and (leaf.dim() == 0 or leaf.shape[0] != size):
                self._shared.add(path)
        return Batch(inputs, labels, source_rows, isinstance(raw, Mapping), frozenset(self._shared), rows is not None)


def arguments_of(model: nn.Module) -> tuple[str, ...] | None:
    """Name what ``forward`` takes as keywords."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError:
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return tuple(p.name for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY})


def _targets(labels: Any) -> Any:
    """Make a tensor of an array or of plain numbers, one per example; several targets stay in the nest they came in."""
    if labels is None or isinstance(labels, (Tensor, int, float, str)):
        return labels
    if isinstance(labels, Mapping):
        return {key: _targets(item) for key, item in labels.items()}
    if isinstance(labels, (tuple, list)) and any(_is_nested(item) for item in labels):
        return _rebuilt(labels, [_targets(item) for item in labels])
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"labels must be numbers, one per example: {error}") from None


def _is_nested(item: Any) -> bool:
    return isinstance(item, Mapping) or (isinstance(item, (Tensor, np.ndarray)) and item.ndim > 0)


def _check_divisible(value: Any, path: str) -> None:
    """Refuse what is not taken apart by example."""
    if isinstance(value, PackedSequence):
        found, remedy = "a PackedSequence", "give the padded tensor and the lengths, and pack them in forward"
    elif isinstance(value, Tensor) and (value.is_nested or value.layout not in {torch.strided, torch.sparse_coo}):
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        found = f"a {kind} tensor"
        remedy = "pad it, and give a mask" if value.is_nested else "give it as to_dense() or to_sparse_coo()"
    elif isinstance(value, np.ndarray):
        found, remedy = f"an array of {value.dtype}", "make it a tensor of the model's type with torch.as_tensor"
    elif isinstance(value, str) and path.rpartition("/")[2].isdigit():
        found, remedy = "a list of strings", "drop that column from the loader"
    else:
        parts: Any = ()
        if isinstance(value, Mapping):
            parts = value.items()
        elif isinstance(value, (tuple, list)):
            parts = enumerate(value)
        for key, part in parts:
            _check_divisible(part, f"{path}/{key}")
        return
    raise UsageError(
        f"the batch holds {found} at {path or 'its inputs'}: only dense and COO tensors can be taken apart by example; "
        f"{remedy}"
    )


def _size(inputs: Any, labels: Any) -> int:
    lengths = [leaf.shape[0] for _, leaf in leaves_of(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    targets = [leaf.shape[0] for _, leaf in leaves_of(labels) if isinstance(leaf, Tensor) and leaf.dim()]
    if targets:
        size = next((target for target in targets if target in lengths), targets[0])
        if lengths and size not in lengths:
            raise UsageError(
                f"the batch has {size} labels, and its tensors have first dimensions {sorted(set(lengths))}: "
                "expected one label per example"
            )
    elif labels is not None:
        raise UsageError(
            "expected labels with one entry per example, got a single one: the loader yields examples and not batches; "
            "wrap a data set in torch.utils.data.DataLoader"
        )
    elif lengths:
        size = max(lengths)
    else:
        raise UsageError("the batch holds no tensor with a batch dimension")
    if size == 0:
        raise UsageError("a batch holds no example: drop empty batches from the loader")
    return size


def map_leaves(value: Any, change: Callable[[Tensor, str], Tensor], path: str = "") -> Any:
    """Apply a function to every tensor in nested mappings, tuples and lists."""
    if isinstance(value, Tensor):
        return change(value, path)
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _rebuilt(value, [map_leaves(item, change, f"{path}/{i}") for i, item in enumerate(value)])
    return value


def _rebuilt(like: Any, items: list[Any]) -> Any:
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor in nested mappings, tuples and lists."""
    return map_leaves(value, lambda tensor, _: change(tensor))


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the leaves of nested mappings, tuples and lists, tensors and others."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves_of(item, f"{path}/{key}")
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from leaves_of(item, f"{path}/{i}")
    else:
        yield path, value


def _plain(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def by_fold(batches: Any, folds: int) -> Iterator[Iterator[Batch]]:
    """Give one stream of batches per fold; batches that mix folds are held in memory and dealt out."""
    if isinstance(batches, Mapping):
        raise UsageError("expected an iterable of batches, got a single mapping: wrap it in a list")
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise UsageError(
            f"expected an iterable of batches, got {type(batches).__name__}, a data set of single examples: wrap it in "
            "torch.utils.data.DataLoader"
        )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise UsageError(
            f"expected an iterable of batches, got {type(batches).__name__}: give a DataLoader or a list of batches"
        )
    read = _read(batches, by_position=isinstance(batches, FoldSorted) and batches.by_position)
    if folds == 1:
        yield read
        return
    if isinstance(batches, FoldSorted):
        if batches.folds != folds:
            raise UsageError(f"the batches are FoldSorted for {batches.folds} folds, and folds={folds} was asked for")
        yield from _promised(read, folds)
        return
    dealt: list[list[tuple[Batch, list[int]]]] = [[] for _ in range(folds)]
    largest = 1
    shared: frozenset[str] = frozenset()
    for batch in read:
        largest = max(largest, batch.size)
        shared |= batch.shared
        folds_here = [fold_of(row, folds) for row in batch.source_rows]
        for fold in range(folds):
            rows = [i for i, own in enumerate(folds_here) if own == fold]
            if rows:
                dealt[fold].append((batch, rows))
    for held in dealt:
        # Only all batches together tell what belongs to a batch as a whole.
        yield _joined((replace(batch, shared=shared).select(rows) for batch, rows in held), largest)
        held.clear()


def _read(batches: Iterable[Any], *, by_position: bool) -> Iterator[Batch]:
    reader = BatchReader()
    for raw in track(batches, "Fisher", length_hint(batches) or None):
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
