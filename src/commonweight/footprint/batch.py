"""One batch as the engine sees it: inputs for the model, labels, and the source row of every example.

Users hand over what their loader yields: a mapping (``model(**batch)``) or a pair ``(inputs, targets)``. Everything
that depends on that choice is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from commonweight.data.batching import SourcedPair
from commonweight.errors import UsageError

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
    """A mapping (keyword arguments), a tuple (positional arguments) or a tensor, without labels."""

    labels: Tensor | None
    """What came with the inputs as labels or targets, ``[size, ...]``."""

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
        leaves = [tensor for path, tensor in leaves_of(self.inputs) if isinstance(tensor, Tensor)]
        return tuple(t.shape[1:] for t in leaves) + (() if self.labels is None else (self.labels.shape[1:],))

    @property
    def uneven(self) -> frozenset[str]:
        """Integer tensors (masks, labels) of which examples have different numbers of entries that count."""
        found = set()
        for path, tensor in [*leaves_of(self.inputs), (LABELS, self.labels)]:
            if not isinstance(tensor, Tensor) or tensor.dim() != 2 or tensor.is_floating_point():
                continue
            if path == LABELS or self.is_rowwise(path, tensor):
                counts = (tensor >= 0 if path == LABELS else tensor != 0).sum(1)
                if bool((counts != counts[0]).any()):
                    found.add(path)
        return frozenset(found)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.source_rows)

    def call(self, model: nn.Module, *, with_labels: bool = False) -> Any:
        """Run the model on the inputs.

        Args:
            model: The model.
            with_labels: Hand it the labels too (only a mapping batch has a place for them).

        Returns:
            Whatever the model returns.
        """
        if isinstance(self.inputs, Mapping):
            wanted = with_labels and self.is_mapping and self.labels is not None and _takes_labels(model)
            labels = {LABELS: self.labels} if wanted else {}
            return model(**self.inputs, **labels)
        if isinstance(self.inputs, tuple):
            return model(*self.inputs)
        return model(self.inputs)

    def original(self) -> Any:
        """Give the batch back in the form it came in, for a loss of the user's own.

        Returns:
            A mapping with ``labels``, or a pair ``(inputs, targets)``.
        """
        if self.is_mapping:
            return {**self.inputs, **({} if self.labels is None else {LABELS: self.labels})}
        return self.inputs, self.labels

    def select(self, rows: Sequence[int]) -> Batch:
        """Take some of the examples, their padding kept.

        Args:
            rows: Positions in this batch.

        Returns:
            A smaller batch. Tensors without a row per example, such as broadcast position ids, stay whole.
        """
        positions = torch.tensor(list(rows), dtype=torch.long)

        def pick(tensor: Tensor, path: str) -> Tensor:
            if not self.is_rowwise(path, tensor):
                return tensor
            return tensor.index_select(0, positions.to(tensor.device))

        return replace(
            self,
            inputs=map_leaves(self.inputs, pick),
            labels=None if self.labels is None else self.labels.index_select(0, positions.to(self.labels.device)),
            source_rows=tuple(self.source_rows[row] for row in rows),
        )

    def is_rowwise(self, path: str, tensor: Tensor) -> bool:
        """Tell whether an input tensor has one row per example.

        Args:
            path: Where it is among the inputs.
            tensor: The tensor.

        Returns:
            Whether its first dimension is the batch.
        """
        return tensor.dim() > 0 and tensor.shape[0] == self.size and path not in self.shared

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to a device, cut from any graph.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        return replace(
            self,
            inputs=map_tensors(self.inputs, lambda tensor: _plain(tensor).to(device)),
            labels=None if self.labels is None else _plain(self.labels).to(device),
        )


class BatchReader:
    """Reads what a loader yields, and remembers which tensors belong to a batch as a whole."""

    def __init__(self) -> None:
        self._next_row = 0
        self._shared: set[str] = set()

    def read(self, raw: Any) -> Batch:
        """Read one batch.

        Args:
            raw: A mapping with tensors, or a pair ``(inputs, targets)``.

        Returns:
            The batch.

        Raises:
            UsageError: If it is neither, is empty, or its parts have different lengths.
        """
        if isinstance(raw, Mapping):
            parts = dict(raw)
            rows = parts.pop(SOURCE_ROW, None)
            labels = parts.pop(LABELS, None)
            inputs: Any = parts
        elif isinstance(raw, SourcedPair):
            inputs, labels, rows = raw
        elif isinstance(raw, (tuple, list)) and len(raw) == 2:
            inputs, labels = raw
            inputs = tuple(inputs) if isinstance(inputs, list) else inputs
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
        if labels is not None and not isinstance(labels, Tensor):
            try:
                labels = torch.as_tensor(labels)
            except (TypeError, ValueError, RuntimeError) as error:
                raise UsageError(f"labels must be numbers, one per example: {error}") from None
        size = _size(inputs, labels)
        if rows is None:
            source_rows = tuple(range(self._next_row, self._next_row + size))
        else:
            source_rows = tuple(int(row) for row in torch.as_tensor(rows).reshape(-1).tolist())
            if len(source_rows) != size:
                raise UsageError(f"{SOURCE_ROW} has {len(source_rows)} entries for a batch of {size} examples")
        self._next_row += size
        for path, leaf in leaves_of(inputs):
            if isinstance(leaf, Tensor):
                if leaf.dim() == 0 or leaf.shape[0] != size:
                    self._shared.add(path)
            elif isinstance(leaf, str) and path.rpartition("/")[2].isdigit():
                raise UsageError(
                    f"the batch holds a list of strings at {path}: only tensors can be taken apart by example; "
                    "drop that column from the loader"
                )
        return Batch(inputs, labels, source_rows, isinstance(raw, Mapping), frozenset(self._shared), rows is not None)


def _takes_labels(model: nn.Module) -> bool:
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.name == LABELS or p.kind is p.VAR_KEYWORD for p in parameters)


def _size(inputs: Any, labels: Tensor | None) -> int:
    lengths = [leaf.shape[0] for _, leaf in leaves_of(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    if labels is not None and labels.dim():
        size = labels.shape[0]
        if lengths and size not in lengths:
            raise UsageError(
                f"the batch has {size} labels, and its tensors have first dimensions {sorted(set(lengths))}: "
                "expected one label per example"
            )
    elif lengths:
        size = max(lengths)
    else:
        raise UsageError("the batch holds no tensor with a batch dimension")
    if size == 0:
        raise UsageError("a batch holds no example: drop empty batches from the loader")
    return size


def map_leaves(value: Any, change: Callable[[Tensor, str], Tensor], path: str = "") -> Any:
    """Apply a function to every tensor in nested mappings, tuples and lists.

    Args:
        value: The nest.
        change: What to do with a tensor, given its path.
        path: Where the nest is.

    Returns:
        The same nest with the new tensors; other values unchanged.
    """
    if isinstance(value, Tensor):
        return change(value, path)
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [map_leaves(item, change, f"{path}/{i}") for i, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor in nested mappings, tuples and lists.

    Args:
        value: The nest.
        change: What to do with a tensor.

    Returns:
        The same nest with the new tensors; other values unchanged.
    """
    return map_leaves(value, lambda tensor, _: change(tensor))


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the leaves of nested mappings, tuples and lists, tensors and others.

    Args:
        value: The nest.
        path: Where the nest is.

    Yields:
        Path and leaf.
    """
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
