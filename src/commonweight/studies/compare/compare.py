"""Every model on every data set, and all overlaps: two models on shared data, or two tasks in one network."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.choices import STRUCTURES
from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.base.folders import TakenError, clear_run
from commonweight.base.progress import part
from commonweight.base.team import led
from commonweight.base.text import Note, silent
from commonweight.base.version import __version__
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.footprints.files import sha256
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.overlaps.table.table import OverlapTable, overlap
from commonweight.report.answer import ANSWER, write_result
from commonweight.report.overlap import result
from commonweight.report.verdicts import Contrast
from commonweight.studies.compare.checks import check_comparison, finished, load, source_of
from commonweight.studies.compare.contrasts import contrasts_of, grid_cells
from commonweight.studies.compare.folder import (
    FOOTPRINTS,
    check_question,
    open_comparison,
    read_comparison,
)
from commonweight.studies.compare.measure import measure, measure_item, probe
from commonweight.studies.compare.options import CompareOptions
from commonweight.studies.run.cluster import check_scheduler, do_all
from commonweight.studies.run.hold import held, refuse_busy
from commonweight.studies.run.record import same_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.footprints.folds import Needs
    from commonweight.report.answer import Result
    from commonweight.studies.compare.checks import Checked
    from commonweight.studies.compare.contrasts import Cell
    from commonweight.studies.run.folder import RunFolder
    from commonweight.studies.run.outlook import Outlook


REST = ("study.md holds every table", "study.json and study.csv every number", "overlap.json the table itself")


@dataclass(frozen=True)
class Comparison:
    """What a run found."""

    folder: Path
    table: OverlapTable
    measured: tuple[str, ...]
    """Names of the footprints measured now."""

    is_new: bool
    """Whether the table, or what is asked of it, was not there before."""

    skipped: tuple[str, ...]
    """Names of those that were there already."""

    contrasts: tuple[Contrast, ...]
    """Which pairs of footprints may be compared."""


@led
def compare(
    models: Sequence[str],
    data: Sequence[str],
    run: str | Path,
    options: CompareOptions | None = None,
    *,
    contrasts: Sequence[str] = (),
    fresh: bool = False,
    scheduler: str | None = None,
    note: Note = silent,
) -> Comparison:
    """Measure every model on every data set and compare all footprints."""
    # The run folder holds ``run.json``, ``footprints/<model>/<data>/``, ``overlap.json`` and its arrays. Calling
    # again with the same arguments measures only what is missing. Everything that can be checked without measuring is
    # checked first, for every model and every data set. Small models stay in memory from then on; large ones are loaded
    # again, one at a time (:func:`~commonweight.studies.compare.checks.inspect_models`).
    check_scheduler(scheduler)
    asked = check_comparison(models, data, Path(run), options or CompareOptions(), fresh=fresh, note=note)
    chosen = contrasts_of(grid_cells(asked.models, asked.tables), contrasts)
    if not asked.folder.exists():
        asked.outlook().check()  # what is refused here leaves no folder behind
    with held(asked.folder) as hold:
        if fresh:
            refuse_busy(asked.folder, hold)
        else:
            check_question(asked.folder, asked.question, busy=hold.busy)
            if hold.alone:
                clear_run(asked.folder, note)
        expected = asked.outlook(fresh=fresh)
        expected.check()
        former = {} if fresh else read_comparison(asked.folder)
        opened = open_comparison(asked.folder, asked.question, fresh=fresh)
        hold.share()  # others may measure beside this process
        if expected.pieces:
            note(expected.sentence())
        with opened.working():
            return _measure_all(opened, asked, former, chosen, scheduler, note)


def compare_and_write(
    models: Sequence[str],
    data: Sequence[str],
    run: str | Path,
    options: CompareOptions | None = None,
    *,
    contrasts: Sequence[str] = (),
    fresh: bool = False,
    scheduler: str | None = None,
    note: Note = silent,
) -> Comparison:
    """Compare, and write the result: ``study.md``, ``study.json``, ``study.csv`` and ``answer.json``."""
    found = compare(models, data, run, options, contrasts=contrasts, fresh=fresh, scheduler=scheduler, note=note)
    if found.is_new or not (found.folder / ANSWER).is_file():
        write_result(found.folder, result(found.table, found.contrasts, rest=REST))
    return found


def read_comparison_result(run: Path, by: str | int) -> Result:
    """Read the result of a finished comparison, by other rows than it was written by."""
    record = read_comparison(run)
    if not record:
        raise UsageError(f"{run} holds no run: give the folder that commonweight compare wrote")
    contrasts = [Contrast(tuple(a), tuple(b), *rest) for a, b, *rest in record.get("contrasts", [])]
    table = OverlapTable.load(run)
    if by in STRUCTURES:  # the table adds up parameters, so their parts are read again
        stored = {name: Footprint.load(run / place) for name, place in record["footprints"].items()}
        found = overlap(stored, common_only=record["table_of"]["common_only"], structure=by)
        table = replace(found, alignment=replace(found.alignment, models=table.alignment.models))
    return result(table, contrasts, by, rest=REST)


def compare_outlook(
    models: Sequence[str],
    data: Sequence[str],
    run: str | Path,
    options: CompareOptions | None = None,
    *,
    fresh: bool = False,
    note: Note = silent,
) -> Outlook[Needs]:
    """Check a comparison without measuring or writing anything, and tell what it will take."""
    asked = check_comparison(models, data, Path(run), options or CompareOptions(), fresh=fresh, note=note)
    if not fresh:
        check_question(asked.folder, asked.question)
    found = asked.outlook(fresh=fresh)
    found.check()
    if not found.pieces or not asked.inspected.loaded:
        return found
    model, table = next(iter(asked.inspected.loaded.values())), next(iter(asked.tables.values()))
    rows = sum(len(asked.tables[name.partition("/")[2]]) for name in found.pieces)
    note("timing a few rows")
    return found.with_time(rows * probe(model, table, asked.options.measure), "measure")


def _measure_all(
    run: RunFolder,
    asked: Checked,
    former: Mapping[str, Any],
    contrasts: tuple[Contrast, ...],
    scheduler: str | None,
    note: Note,
) -> Comparison:
    models, waiting, tables, options = asked.models, asked.inspected.loaded, asked.tables, asked.options
    question = run.record["asked"]
    found: dict[str, Footprint] = {}
    measured = set() if scheduler is None else _measure_elsewhere(scheduler, run, asked, note)
    # Models in memory come first, and go when they are measured: the others are loaded one at a time.
    for model in sorted(models, key=lambda name: models[name] not in waiting):
        loaded = waiting.pop(models[model], None)
        for data, table in tables.items():
            name = f"{model}/{data}"
            place = run.path / FOOTPRINTS / name
            if place.exists():
                found[name] = finished(place, question["models"][model], question["data"][data])
                if name not in measured:
                    note(f"{name}: measured before")
                continue
            if loaded is None:
                loaded = load(models[model], options.load)
                if not same_identity(question["models"][model], loaded.identity):
                    raise MeasurementError(
                        f"{models[model].spec} is not what it was when it was read first: its files changed meanwhile, "
                        "or its weights are drawn anew each time; start again from weights that stay"
                    )
            note(f"{name}: measuring {len(table)} examples")
            try:
                with part(f"{name}, {len(found) + 1} of {len(models) * len(tables)}"):
                    found[name] = measure(loaded, table, options.measure, folder=place, note=note)
                measured.add(name)
            except (UsageError, OSError) as error:
                if not (place / FOOTPRINT_RECORD).is_file():
                    raise
                if isinstance(error, TakenError):
                    shutil.rmtree(error.kept)
                found[name] = finished(place, question["models"][model], question["data"][data])
                note(f"{name}: another process finished it meanwhile; its footprint is taken")
        del loaded  # before the next is read
    footprints = {name: found[name] for name in (f"{model}/{data}" for model in models for data in tables)}
    for sentence in beware_of_labels(footprints):
        note(sentence)
    cells = grid_cells(models, tables)
    overlaps, now_of = _table(run.path, footprints, cells, options.common_only, former.get("table_of", {}))
    run.update(
        status="complete",
        table_of=now_of,
        footprints={name: f"{FOOTPRINTS}/{name}" for name in footprints},
        contrasts=contrasts,
    )
    return Comparison(
        run.path,
        overlaps,
        measured=tuple(name for name in footprints if name in measured),
        is_new=(now_of, json.loads(json.dumps(contrasts))) != (former.get("table_of"), former.get("contrasts")),
        skipped=tuple(name for name in footprints if name not in measured),
        contrasts=contrasts,
    )


def _measure_elsewhere(scheduler: str, run: RunFolder, asked: Checked, note: Note) -> set[str]:
    """Let the workers of a cluster measure what is missing; give the names of it."""
    asked.inspected.loaded.clear()
    missing = {
        f"{model}/{data}": partial(
            measure_item,
            source_of(asked.models[model], asked.options.load),
            run.record["asked"]["models"][model],
            table,
            asked.options.measure,
            run.path / FOOTPRINTS / model / data,
        )
        for model in asked.models
        for data, table in asked.tables.items()
        if not (run.path / FOOTPRINTS / model / data).exists()
    }
    do_all(scheduler, missing, note)
    return set(missing)


def _table(
    run: Path,
    footprints: Mapping[str, Footprint],
    cells: Mapping[str, Cell],
    common_only: bool,
    former: Mapping[str, Any],
) -> tuple[OverlapTable, dict[str, Any]]:
    """Compute the table, or what is new in it, or read the one that was saved; with what it is of."""
    records = [[name, sha256(run / FOOTPRINTS / name / FOOTPRINT_RECORD)] for name in footprints]
    is_of = {"footprints": records, "common_only": common_only, "commonweight": __version__}
    saved = run / OVERLAP
    earlier = None
    if saved.is_file() and former.items() >= {"sha256": sha256(saved), "commonweight": __version__}.items():
        with suppress(IntegrityError):  # damaged arrays are computed again
            earlier = OverlapTable.load(run)
    if earlier is not None and former == is_of | {"sha256": former["sha256"]}:
        return earlier, dict(former)
    if earlier is not None and not (earlier.resampled and all(each in records for each in former["footprints"])):
        earlier = None
    table = overlap(footprints, common_only=common_only, earlier=earlier)
    of_models = replace(table.alignment, models={name: cell.model for name, cell in cells.items()})
    table = replace(table, alignment=of_models)
    table.save(run)
    return table, is_of | {"sha256": sha256(saved)}
