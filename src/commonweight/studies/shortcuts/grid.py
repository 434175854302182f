"""The full grid: every model's Fisher on every data set, under every Fisher type, and all overlaps of one seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.errors import IntegrityError
from commonweight.data.table import open_table
from commonweight.models.options import LoadOptions
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.studies.compare.compare import compare
from commonweight.studies.compare.folder import read_comparison
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions
from commonweight.studies.compare.rows import rows_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from commonweight.base.text import Note
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def is_measured(plan: Plan, folder: SeedFolder, fisher_type: str) -> bool:
    """Tell whether all Fishers of one Fisher type were measured and compared."""
    found = read_comparison(folder.grid(fisher_type)).get("footprints", {})
    return set(plan.footprints) <= set(found) and (folder.grid(fisher_type) / OVERLAP).is_file()


def measure_grid(plan: Plan, folder: SeedFolder, *, progress: bool, note: Note) -> dict[str, OverlapTable]:
    """Measure what is missing of the grid and compare everything."""
    models = [f"{name}={folder.model(name)}" for name in plan.measured]
    data = [f"{name}={folder.measured(name)}" for name in plan.sets]
    columns = ColumnOptions(text_column=("text",), label_column="label", max_length=plan.max_length)
    note = _without_repeats(note, (f"{name}:" for name in plan.footprints))
    tables: dict[str, OverlapTable] = {}
    for rule in plan.fisher_types:
        options = CompareOptions(
            load=LoadOptions(trust_remote_code=plan.trust_remote_code),
            measure=MeasureOptions(fisher_type=rule, folds=plan.folds, columns=columns),
        )
        found = compare(models, data, folder.grid(rule), options, progress=progress, note=note)
        tables[rule] = found.table
    return tables


def _without_repeats(note: Note, footprints: Iterable[str]) -> Note:
    """Pass on every sentence about a footprint, and any other once: the rows that are cut are the same for all."""
    beginnings = tuple(footprints)
    heard: set[str] = set()

    def once(sentence: str) -> None:
        if sentence.startswith(beginnings) or sentence not in heard:
            note(sentence)
        heard.add(sentence)

    return once


def has_measured_rows(plan: Plan, folder: SeedFolder) -> bool:
    """Tell whether all files of rows that Fishers are measured on are there."""
    return all(folder.measured(name).is_file() for name in plan.sets)


def measured_rows(plan: Plan, folder: SeedFolder) -> Mapping[str, str]:
    """Name the source rows of every set that Fishers were measured on."""
    found = {}
    for name in plan.sets:
        place = folder.measured(name)
        table = open_table(str(place))
        for rule in plan.fisher_types:
            asked = read_comparison(folder.grid(rule)).get("asked", {"data": {}})
            measured = asked["data"].get(name, {}).get("sha256")
            if measured != table.identity["sha256"]:
                raise IntegrityError(
                    f"{place} is not what the Fishers in {folder.grid(rule)} were measured on: expected SHA-256 "
                    f"{measured}, got {table.identity['sha256']}; put the file back, or remove that folder and run the "
                    "study again"
                )
        found[name] = rows_key(table)
    return found
