"""The rows of one task, training or test: a view of the images that becomes floats when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from commonweight.base.errors import UsageError
from commonweight.base.seeds import checked_seed
from commonweight.data.images.draws import Purpose, permutation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from commonweight.data.images.changes import Change

CHUNK = 1024
"""Rows changed at a time: small enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Scaling:
    """The last step: ``(value - mean) / deviation`` per channel, of values from 0 to 1."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Scale images in place."""
        mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return images.sub_(mean).div_(deviation)


@dataclass(eq=False, repr=False)
class RowSet(Dataset[tuple["torch.Tensor", int]]):
    """Rows of one task. A PyTorch data set: pairs of an input and a label, the same in every worker and process.

    ``inputs`` holds all rows as float32 and is built at its first use (4 bytes per value: 188 MB for 60,000 MNIST
    images); single rows and :meth:`take` need none of it. The images themselves are shared between all tasks of a
    stream.
    """

    pixels: Tensor
    """All images of the part, ``[n, channels, height, width]``, uint8 or float32."""

    labels: Tensor
    """Labels of the chosen rows, ``[m]``, int64."""

    chosen: Tensor | None
    """Which rows of ``pixels``, ``[m]``, int64; None is all of them."""

    key: int
    """Names the rows in the order of batches: the task's number."""

    brightest: int = 1
    """The value of ``pixels`` that becomes 1."""

    change: Change | None = None
    scaling: Scaling | None = None
    """The last step; None leaves the values from 0 to 1."""

    flatten: bool = False
    """Whether an input is a vector."""

    _inputs: Tensor | None = field(default=None, init=False)

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, *, key: int = 0) -> RowSet:
        """Make the rows of a task of your own.

        Args:
            inputs: ``[m, *shape]``, float32; kept, not copied.
            labels: ``[m]``, int64, from 0.
            key: The task's number; it names the order of batches.

        Returns:
            The rows.

        Raises:
            UsageError: If shapes or types are not as said.

        Example:
            >>> rows = RowSet.of(torch.zeros(3, 2), torch.tensor([0, 1, 0]))
            >>> [len(labels) for _, labels in rows.batches(2)]
            [2, 1]
        """
        if inputs.dtype != torch.float32 or labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
            raise UsageError(
                f"got inputs of {inputs.dtype} {list(inputs.shape)} and labels of {labels.dtype} {list(labels.shape)}; "
                "expected float32 [m, ...] and int64 [m]"
            )
        rows = cls(inputs, labels, None, key)
        rows._inputs = inputs
        return rows

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        one = self.take(torch.tensor([row])) if self._inputs is None else self._inputs[row : row + 1]
        return one[0], int(self.labels[row])

    def __repr__(self) -> str:
        return f"RowSet({len(self)} rows of shape {list(self.shape)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        shape = self.pixels.shape[1:]
        return (shape.numel(),) if self.flatten else tuple(shape)

    @property
    def source_rows(self) -> Tensor:
        """Number of each row in the data set's own part, ``[m]``, int64."""
        return torch.arange(len(self)) if self.chosen is None else self.chosen

    @property
    def inputs(self) -> Tensor:
        """All inputs, ``[m, *shape]``, float32; built once and then kept."""
        if self._inputs is None:
            self._inputs = self._made(self.chosen)
        return self._inputs

    def take(self, rows: Tensor) -> Tensor:
        """Make the inputs of some rows, equal to ``inputs[rows]``, without building all of them."""
        return self._made(rows if self.chosen is None else self.chosen[rows])

    def batches(self, size: int, seed: int | None = None, epoch: int = 0) -> Batches:
        """Cut the rows into batches.

        Args:
            size: Rows per batch, at least 1; the last batch has what is left.
            seed: Names the order of the rows; None keeps their own.
            epoch: With a seed, every epoch has an order of its own.

        Returns:
            Pairs of inputs and labels; iterable again and again, and the same each time.

        Raises:
            UsageError: If the size or the epoch is out of range, or the seed is not a whole number of at least 0.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"a batch needs a whole number of at least 1 rows, got {size!r}")
        checked_seed(epoch)
        order = None if seed is None else permutation(len(self), seed, Purpose.BATCHES, self.key, epoch)
        return Batches(self, size, order)

    def _made(self, source: Tensor | None) -> Tensor:
        count = len(self.pixels) if source is None else len(source)
        out = torch.empty(count, *self.pixels.shape[1:])
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            part = self.pixels[start:stop] if source is None else self.pixels[source[start:stop]]
            scaled = part.float().div_(self.brightest) if part.dtype == torch.uint8 else part
            out[start:stop] = scaled if self.change is None else self.change(scaled)
            if self.scaling is not None:
                self.scaling(out[start:stop])
        return out.flatten(1) if self.flatten else out


@dataclass(frozen=True, eq=False)
class Batches:
    """Pairs of inputs and labels in one fixed order; iterable again and again."""

    rows: RowSet
    size: int
    order: Tensor | None

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = self.rows.inputs, self.rows.labels
        for start in range(0, len(labels), self.size):
            span = slice(start, start + self.size)
            if self.order is None:
                yield inputs[span], labels[span]
            else:
                yield inputs[self.order[span]], labels[self.order[span]]
