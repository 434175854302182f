"""Folds: disjoint parts of the examples, decided by the source row alone; how they are written, and what they take.

Two footprints made from the same source rows, even with different words planted in them, have the same fold map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from commonweight.base.errors import UsageError
from commonweight.base.seeds import keyed
from commonweight.footprints.weight_sample import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FOLD_MAP = "blake2b-64(decimal source row) mod folds"


def fold_of(source_row: int, folds: int) -> int:
    """Tell the fold of a source row.

    Args:
        source_row: The row's number in its data set.
        folds: How many folds there are, at least 1.

    Returns:
        A number from 0 to ``folds - 1``.

    Example:
        >>> [fold_of(row, 4) for row in range(8)]
        [2, 3, 2, 0, 3, 0, 2, 1]
    """
    return keyed(source_row) % folds


@dataclass(frozen=True)
class FoldSorted:
    """Batches promised to come fold by fold, each within one fold: measured without holding them in memory."""

    batches: Iterable[Any]
    folds: int

    by_position: bool = False
    """Whether the source rows are but places in a file: then nobody said that rows of equal content are no copies."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __length_hint__(self) -> int:
        return length_hint(self.batches)


def accurate(dtype: torch.dtype) -> torch.dtype:
    """Tell the type in which gradients of a parameter are multiplied and summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


SHORT_FROM = 4096
"""Weights from which on a parameter's folds are shortened: smaller ones take no room, and rounding would show."""

NUMBER = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Needs:
    """Bytes of the tensors of one Fisher, known from the shapes of the parameters alone."""

    whole: int
    """The Fisher on disk, and one set of sums in memory."""

    fold: int
    """One fold on disk; 0 where there are no folds."""

    folds: int
    """How many there are, at least 1."""

    sample: int
    """The sample of the weights, on disk."""

    in_memory: bool = False
    """Whether the sums of all folds stay in memory until the end, and not those of one."""

    @property
    def disk(self) -> int:
        """Everything that is written but the record, heads of files, and 8 bytes a row (16 with source rows)."""
        return self.whole + self.sample + (self.fold * self.folds if self.folds > 1 else 0)

    @property
    def memory(self) -> int:
        """Sums held meanwhile: those of one fold (or of all), and with folds those of the whole."""
        kept = self.folds if self.in_memory else 0
        return self.whole * ((2 if self.folds > 1 else 1) + kept)


def needs_of(parameters: Mapping[str, Tensor], folds: int, fold_dtype: torch.dtype | None) -> Needs:
    """Tell what a Fisher of some parameters will take, before it is measured; ``device="meta"`` is enough."""
    whole = fold = sample = 0
    for parameter in parameters.values():
        size, dtype = parameter.numel(), accurate(parameter.dtype)
        whole += size * dtype.itemsize
        fold += size * _written(size, dtype, fold_dtype).itemsize
        sample += min(size, ENTRIES) * NUMBER if parameter.dim() > 1 else 0
    return Needs(whole, fold if folds > 1 else 0, folds, sample)


def check_fold_dtype(fold_dtype: torch.dtype | None, folder: str | Path | None) -> None:
    """Check the type in which folds shall be written."""
    if fold_dtype is None:
        return
    if fold_dtype != torch.bfloat16:
        raise UsageError(
            f"fold_dtype must be None or torch.bfloat16, which has the range of float32, got {fold_dtype}: small "
            "importances would vanish in it"
        )
    if folder is None:
        raise UsageError("fold_dtype is how folds are written: give a folder too, or leave it out")


def fold_record(folds: int, fold_dtype: torch.dtype | None) -> dict[str, Any]:
    """Describe folds for the metadata of a footprint."""
    short = {} if fold_dtype is None or folds == 1 else {"dtype": str(fold_dtype).removeprefix("torch.")}
    return {"count": folds, "map": FOLD_MAP, **short}


def shortened(tensors: Mapping[str, Tensor], fold_dtype: torch.dtype | None) -> Mapping[str, Tensor]:
    """Give a fold in the type it is written in, each tensor converted when it is asked for."""
    return tensors if fold_dtype is None else _Shortened(tensors, fold_dtype)


class _Shortened(Mapping[str, Tensor]):
    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._tensors, self._dtype = tensors, dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return tensor.to(_written(tensor.numel(), tensor.dtype, self._dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _written(size: int, measured: torch.dtype, fold_dtype: torch.dtype | None) -> torch.dtype:
    return fold_dtype if fold_dtype is not None and size >= SHORT_FROM and measured == torch.float32 else measured
