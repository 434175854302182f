"""One batch as the engine sees it: inputs for the model, labels, and the source row of every example.

Users hand over what their loader yields: a mapping (``model(**batch)``) or a pair ``(inputs, targets)``. Everything
that depends on that choice is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from commonweight.errors import UsageError

SOURCE_ROW = "source_row"
"""Reserved key of a mapping batch: the row numbers in the source data, ``[batch]``, integer; not shown to the model."""

LABELS = "labels"


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
            labels = {LABELS: self.labels} if with_labels and self.is_mapping and self.labels is not None else {}
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

        def pick(tensor: Tensor) -> Tensor:
            if tensor.dim() == 0 or tensor.shape[0] != self.size:
                return tensor
            return tensor.index_select(0, positions.to(tensor.device))

        return replace(
            self,
            inputs=map_tensors(self.inputs, pick),
            labels=None if self.labels is None else pick(self.labels),
            source_rows=tuple(self.source_rows[row] for row in rows),
        )

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to a device.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        return replace(
            self,
            inputs=map_tensors(self.inputs, lambda tensor: tensor.to(device)),
            labels=None if self.labels is None else self.labels.to(device),
        )


def read_batch(raw: Any, first_row: int) -> Batch:
    """Read what a loader yielded.

    Args:
        raw: A mapping with tensors, or a pair ``(inputs, targets)``.
        first_row: The running number of its first example, used where no ``source_row`` is given.

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
    elif isinstance(raw, (tuple, list)) and len(raw) == 2:
        inputs, labels = raw
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        rows = None
    else:
        shape = f" of {len(raw)}" if isinstance(raw, (tuple, list)) else ""
        raise UsageError(
            f"expected each batch to be a mapping (as for model(**batch)) or a pair (inputs, targets), "
            f"got {type(raw).__name__}{shape}"
        )
    if labels is not None and not isinstance(labels, Tensor):
        labels = torch.as_tensor(labels)
    size = _size(inputs, labels)
    if rows is None:
        source_rows = tuple(range(first_row, first_row + size))
    else:
        source_rows = tuple(int(row) for row in torch.as_tensor(rows).reshape(-1).tolist())
        if len(source_rows) != size:
            raise UsageError(f"{SOURCE_ROW} has {len(source_rows)} entries for a batch of {size} examples")
    return Batch(inputs, labels, source_rows, isinstance(raw, Mapping))


def _size(inputs: Any, labels: Tensor | None) -> int:
    lengths: list[int] = []
    map_tensors(inputs, lambda tensor: (lengths.append(tensor.shape[0]) if tensor.dim() else None, tensor)[1])
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


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor in nested mappings, tuples and lists.

    Args:
        value: The nest.
        change: What to do with a tensor.

    Returns:
        The same nest with the new tensors; other values unchanged.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(item, change) for item in value)
    return value
