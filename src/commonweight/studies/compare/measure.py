"""One model on one data set: a footprint, with both identities in its metadata."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from commonweight.base.errors import MeasurementError
from commonweight.base.text import Note, silent
from commonweight.diagonal_fisher.collector import FisherCollector, choose_parameters
from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.copies import CopiesWarning
from commonweight.footprints.folds import FoldSorted, needs_of
from commonweight.studies.compare.prepare import ColumnOptions, prepare
from commonweight.studies.run.outlook import Outlook, model_bytes
from commonweight.studies.run.rows import fold_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commonweight.data.table import Table
    from commonweight.diagonal_fisher.likelihood import FisherType
    from commonweight.footprints.footprint import Footprint
    from commonweight.models.options import LoadedModel

Result = TypeVar("Result")

FOLD_DTYPE = torch.bfloat16
"""Folds take half the room that the whole does; of the sums nothing is rounded."""


FIRST_BATCH_SIZE = {"cuda": 64}


FIRST_BATCH_SIZE_ELSEWHERE = 32


@dataclass(frozen=True)
class MeasureOptions:
    """How a Fisher is measured."""

    fisher_type: FisherType = "empirical"
    folds: int | None = None
    """Disjoint parts of the rows, kept apart: noise ceilings and intervals come from them. None takes eight, or does
    without and says so where a fold would hold no row."""

    seed: int = 0
    """Names the sampled labels."""

    samples: int = 1
    """Labels drawn per example of the Fisher type ``mc``."""

    batch_size: int | None = None
    """Rows per batch; None starts large and halves when memory runs out. It changes speed, never the result."""

    loss: str | None = None
    """Name of the likelihood; None takes that of the model's class."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    columns: ColumnOptions = field(default_factory=ColumnOptions)

    def deciding(self) -> dict[str, Any]:
        """Give what decides the numbers, as plain JSON values."""
        found = asdict(self)
        idle = [] if self.fisher_type == "mc" else ["seed", "samples"]
        for key in ("batch_size", *idle):
            del found[key]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()} | {
            "columns": {k: list(v) if isinstance(v, tuple) else v for k, v in found["columns"].items()}
        }


def measure(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    *,
    folder: Path | None = None,
    fold_dtype: torch.dtype | None = FOLD_DTYPE,
    progress: bool = False,
    note: Note = silent,
) -> Footprint:
    """Measure the Fisher of a model on a data set."""
    folds = fold_count([table], options.folds, note)
    prepared = prepare(loaded, table, options.columns, folds=folds)
    for sentence in prepared.notes:
        note(sentence)
    metadata = {"model": loaded.identity, "data": table.identity | {"columns": prepared.columns}}

    def run(batch_size: int) -> Footprint:
        batches = FoldSorted(prepared.batches.with_batch_size(batch_size), folds, by_position=not table.is_numbered)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CopiesWarning)
            return fisher(
                loaded.model,
                batches,
                **_how(loaded, options),
                folds=folds,
                progress=progress,
                folder=folder,
                fold_dtype=None if folder is None else fold_dtype,
                metadata=metadata,
            )

    found = with_less_memory(loaded, options, len(table), note, run)
    if found.copies:
        note(f"{table.name}: {found.copies}")
    return found


def collector_of(loaded: LoadedModel, options: MeasureOptions) -> FisherCollector:
    """Make a collector that measures what :func:`measure` measures."""
    return FisherCollector(loaded.model, **_how(loaded, options))


def with_less_memory(
    loaded: LoadedModel, options: MeasureOptions, rows: int, note: Note, run: Callable[[int], Result]
) -> Result:
    """Run a measurement again with half the rows per batch whenever memory runs out."""
    size = options.batch_size or _first_size(loaded)
    while True:
        try:
            return run(min(size, rows))
        except torch.OutOfMemoryError as error:
            if options.batch_size is not None or size == 1:
                remedy = (
                    "use a smaller one, or auto" if options.batch_size is not None else "cut rows with --max-length"
                )
                raise MeasurementError(f"memory ran out at --batch-size {size}; {remedy}") from error
        size //= 2
        torch.cuda.empty_cache()
        note(f"memory ran out; measuring again with {size} rows per batch, which does not change the result")


def _how(loaded: LoadedModel, options: MeasureOptions) -> dict[str, Any]:
    return {
        "fisher_type": options.fisher_type,
        "loss": options.loss or loaded.task,
        "include": options.include or None,
        "exclude": options.exclude or None,
        "seed": options.seed,
        "samples": options.samples,
    }


def measure_outlook(
    loaded: LoadedModel, table: Table, options: MeasureOptions, folder: Path, note: Note = silent
) -> Outlook:
    """Check a measurement without doing it, and tell what it will take."""
    folds = fold_count([table], options.folds, note)
    for sentence in prepare(loaded, table, options.columns, folds=folds).notes:
        note(sentence)
    parameters = choose_parameters(loaded.model, options.include or None, options.exclude or None)
    found = Outlook(folder, {folder.name: needs_of(parameters, folds, FOLD_DTYPE)}, model=model_bytes(loaded))
    found.check()
    return found


def _first_size(loaded: LoadedModel) -> int:
    device = next((parameter.device.type for parameter in loaded.model.parameters()), "cpu")
    return FIRST_BATCH_SIZE.get(device, FIRST_BATCH_SIZE_ELSEWHERE)
