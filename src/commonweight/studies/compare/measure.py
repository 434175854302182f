"""One model on one data set: a footprint, with both identities in its metadata."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import MeasurementError
from commonweight.base.text import DASH, Note, silent, size_words
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.copies import CopiesWarning
from commonweight.footprints.fold_format import needs_of
from commonweight.footprints.folds import FoldSorted
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.run.outlook import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from commonweight.data.table import Table
    from commonweight.footprints.fold_format import Needs
    from commonweight.footprints.footprint import Footprint
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import MeasureOptions


FOLD_DTYPE = torch.bfloat16
"""Folds take half the room that the whole does; of the sums nothing is rounded."""


FIRST_BATCH_SIZE = {"cuda": 64}


FIRST_BATCH_SIZE_ELSEWHERE = 32


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
    size = options.batch_size or _first_size(loaded)
    while True:
        batches = FoldSorted(
            prepared.batches.with_batch_size(min(size, len(table))), folds, by_position=not table.is_numbered
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CopiesWarning)
                found = fisher(
                    loaded.model,
                    batches,
                    fisher_type=options.fisher_type,
                    loss=options.loss or loaded.task,
                    include=options.include or None,
                    exclude=options.exclude or None,
                    folds=folds,
                    seed=options.seed,
                    samples=options.samples,
                    progress=progress,
                    folder=folder,
                    fold_dtype=None if folder is None else fold_dtype,
                    metadata=metadata,
                )
        except torch.OutOfMemoryError as error:
            if options.batch_size is not None:
                raise MeasurementError(
                    f"memory ran out at {{argument}} {size}; use a smaller one, or leave it out", argument="batch_size"
                ) from error
            if size == 1:
                raise MeasurementError(
                    "memory ran out with one row per batch; cut rows with {max_length}", max_length=None
                ) from error
        else:
            if found.copies:
                note(f"{table.name}: {found.copies}")
            return found
        size //= 2
        torch.cuda.empty_cache()
        note(f"memory ran out; measuring again with {size} rows per batch, which does not change the result")


def measure_outlook(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    folder: Path,
    note: Note = silent,
    *,
    meanwhile: Callable[[Mapping[str, torch.Tensor]], int] | None = None,
) -> Outlook[Needs]:
    """Check a measurement without doing it, and tell what it will take; ``meanwhile`` of its parameters goes again."""
    folds = fold_count([table], options.folds, note)
    for sentence in prepare(loaded, table, options.columns, folds=folds).notes:
        note(sentence)
    parameters = choose_parameters(loaded.model, options.include or None, options.exclude or None)
    needs = {folder.name: needs_of(parameters, folds, FOLD_DTYPE)}
    passing = 0 if meanwhile is None else meanwhile(parameters)
    found = footprint_outlook(folder, needs, model=model_bytes(loaded), meanwhile=passing)
    found.check()
    return found


def footprint_outlook(
    place: Path,
    needs: Mapping[str, Needs],
    *,
    model: int,
    there: int = 0,
    models: int = 0,
    meanwhile: int = 0,
    thrown_away: int = 0,
) -> Outlook[Needs]:
    """Tell what footprints take, ``there`` of which are there already, with ``model`` bytes of models in memory."""
    folds = max((each.folds for each in needs.values()), default=1)
    return Outlook(
        place,
        f"footprint{'' if len(needs) == 1 else 's'}{f' with {folds} folds' if folds > 1 else ''} to measure",
        needs,
        {
            "folds": lambda each: str(each.folds),
            "the whole": lambda each: size_words(each.whole),
            "its folds": lambda each: size_words(each.fold * each.folds) if each.folds > 1 else DASH,
            "disk": lambda each: size_words(each.disk),
            "sums in memory": lambda each: size_words(each.memory),
        },
        {"the model": model, "sums": max((each.memory for each in needs.values()), default=0)},
        facts={
            "footprints there already": str(there),
            "footprints": size_words(sum(each.disk for each in needs.values())),
        },
        models=models,
        meanwhile=meanwhile,
        thrown_away=thrown_away,
    )


def model_bytes(loaded: LoadedModel) -> int:
    """Tell how much memory a model takes."""
    return sum(tensor.nbytes for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))


def _first_size(loaded: LoadedModel) -> int:
    device = next((parameter.device.type for parameter in loaded.model.parameters()), "cpu")
    return FIRST_BATCH_SIZE.get(device, FIRST_BATCH_SIZE_ELSEWHERE)
