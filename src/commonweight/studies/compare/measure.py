"""One model on one data set: a footprint, with both identities in its metadata."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.folders import TakenError
from commonweight.base.team import team_here
from commonweight.base.text import DASH, Note, silent, size_words
from commonweight.diagonal_fisher.batch import by_fold
from commonweight.diagonal_fisher.collector import FisherCollector, choose_parameters
from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.copies import CopiesWarning
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.footprints.folds import FoldSorted, needs_of
from commonweight.interventions.measure import row_scores
from commonweight.models.load import load_model
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.run.outlook import Outlook
from commonweight.studies.run.record import same_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from commonweight.data.table import Table
    from commonweight.footprints.folds import Needs
    from commonweight.footprints.footprint import Footprint
    from commonweight.models.options import LoadedModel, LoadOptions
    from commonweight.studies.compare.options import MeasureOptions

Result = TypeVar("Result")

FOLD_DTYPE = torch.bfloat16
"""Folds take half the room that the whole does; of the sums nothing is rounded."""


FIRST_BATCH_SIZE = {"cuda": 64}
FIRST_BATCH_SIZE_ELSEWHERE = 32

PROBED = 8
"""Rows per batch of a probe of how long a measurement takes."""


def measure(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    *,
    folder: Path | None = None,
    fold_dtype: torch.dtype | None = FOLD_DTYPE,
    note: Note = silent,
) -> Footprint:
    """Measure the Fisher of a model on a data set; the processes of a team that are led load the model, and share."""
    asked = replace(options, folds=fold_count([table], options.folds, note))
    with team_here().ordered(partial(_follow, loaded.source, loaded.identity, table, asked, folder, fold_dtype)):
        with team_here().together():
            pass
        return _measure(loaded, table, asked, folder, fold_dtype, note)


def _follow(
    source: tuple[str, LoadOptions] | None,
    identity: Mapping[str, Any],
    table: Table,
    options: MeasureOptions,
    folder: Path | None,
    fold_dtype: torch.dtype | None,
) -> None:
    """Do this process's share of a measurement that another leads."""
    with team_here().together():
        loaded = _load_again(source, identity)
    _measure(loaded, table, options, folder, fold_dtype, silent)


def measure_item(
    source: tuple[str, LoadOptions], identity: Mapping[str, Any], table: Table, options: MeasureOptions, folder: Path
) -> None:
    """Measure a footprint in a worker of a cluster, unless it is there."""
    if folder.exists():
        return
    try:
        _measure(_load_again(source, identity), table, options, folder, FOLD_DTYPE, silent)
    except TakenError as error:
        if not (folder / FOOTPRINT_RECORD).is_file():
            raise
        shutil.rmtree(error.kept)  # a worker that Dask gave up finished the same


def _load_again(source: tuple[str, LoadOptions] | None, identity: Mapping[str, Any]) -> LoadedModel:
    """Load a model that another process has, too; the last one stays in memory."""
    if source is None:
        raise UsageError("several processes cannot share a model that is in memory alone: save it, and give its folder")
    loaded = _last_loaded(*source)
    if not same_identity(identity, loaded.identity):
        _last_loaded.cache_clear()
        raise MeasurementError(
            f"{loaded.identity['name']} is another model than in the first process: weights are drawn anew each time, "
            "or files differ; start from weights that stay, in a place that every process sees"
        )
    return loaded


_last_loaded = lru_cache(maxsize=1)(load_model)


def _measure(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    folder: Path | None,
    fold_dtype: torch.dtype | None,
    note: Note,
) -> Footprint:
    folds = options.folds or 1
    with team_here().together():
        prepared = prepare(loaded, table, options.columns, folds=folds, note=note)
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
            if options.batch_size is not None:
                raise MeasurementError(
                    f"memory ran out at {{argument}} {size}; use a smaller one, or leave it out", argument="batch_size"
                ) from error
            if size == 1:
                raise MeasurementError(
                    "memory ran out with one row per batch; cut rows with {max_length}", max_length=None
                ) from error
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


def probe(loaded: LoadedModel, table: Table, options: MeasureOptions) -> float:
    """Time a few rows: seconds per row; nan where there are too few to tell."""
    if len(table) < 2 * PROBED:
        return math.nan
    prepared = prepare(loaded, table.taken(table.order[: 2 * PROBED]), options.columns)
    with collector_of(loaded, options) as collector:
        for stream in by_fold(prepared.batches.with_batch_size(PROBED), 1):
            for batch in stream:  # the first compares rules too
                start = time.perf_counter()
                collector.update(batch)
    return (time.perf_counter() - start) / PROBED


def probe_scores(loaded: LoadedModel, table: Table, options: MeasureOptions) -> float:
    """Time the scores of a few rows: seconds per row."""
    few = table.taken(table.order[:PROBED])
    batches = prepare(loaded, few, options.columns).batches.with_batch_size(PROBED)
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        row_scores(loaded.model, batches, options.loss or loaded.task)
    return (time.perf_counter() - start) / len(few)


def measure_outlook(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    folder: Path,
    note: Note = silent,
    *,
    in_memory: bool = False,
) -> Outlook[Needs]:
    """Check a measurement without doing it, and tell what it will take; the sums of all folds may stay in memory."""
    folds = fold_count([table], options.folds, note)
    prepare(loaded, table, options.columns, folds=folds, note=note)
    parameters = choose_parameters(loaded.model, options.include or None, options.exclude or None)
    needs = replace(needs_of(parameters, folds, FOLD_DTYPE), in_memory=in_memory)
    found = footprint_outlook(folder, {folder.name: needs}, model=model_bytes(loaded))
    found.check()
    return found


def footprint_outlook(
    place: Path,
    needs: Mapping[str, Needs],
    *,
    model: int,
    there: int = 0,
    models: int = 0,
    thrown_away: int = 0,
    facts: Mapping[str, str] | None = None,
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
            **(facts or {}),
        },
        models=models,
        thrown_away=thrown_away,
    )


def model_bytes(loaded: LoadedModel) -> int:
    """Tell how much memory a model takes."""
    return sum(tensor.nbytes for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))


def _first_size(loaded: LoadedModel) -> int:
    device = next((parameter.device.type for parameter in loaded.model.parameters()), "cpu")
    return FIRST_BATCH_SIZE.get(device, FIRST_BATCH_SIZE_ELSEWHERE)
