"""The run folder of a comparison: what was asked, which footprints are whole, and what ``--fresh`` throws away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.overlaps.table.files import ARRAYS
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.report.answer import ANSWER, FILES
from commonweight.report.html import REPORT
from commonweight.studies.run.folder import RunFolder, check_place, open_run
from commonweight.studies.run.record import (
    FORMAT,
    RECORD,
    StudyKind,
    check_name,
    damaged,
    differences,
    read_record,
    refuse_another,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

COMPARISON = StudyKind("comparison", ("torch", "transformers", "datasets"))
FOOTPRINTS = "footprints"
TABLES = (OVERLAP, ARRAYS, ANSWER, *FILES.values(), REPORT)
NAMED = ("models", "data")
"""Parts of the question that have an entry for each model or data set, and may get more."""


def read_comparison(path: Path) -> dict[str, Any]:
    """Read what a run of a comparison says of itself; empty where there is none."""
    record = read_record(path, COMPARISON)
    asked = record.get("asked", {})
    for part in ("settings", *NAMED):
        value = asked.get(part, {})
        if not isinstance(value, dict) or (part in NAMED and not all(isinstance(v, dict) for v in value.values())):
            raise damaged(path / RECORD, f"{part} is no mapping")
        for name in value if part in NAMED else ():
            check_name(name, path / RECORD)
    return record


def open_comparison(path: Path, asked: Mapping[str, Any], *, fresh: bool = False) -> RunFolder:
    """Start a comparison, or go on with one that asks for the same."""
    path = path.resolve()
    check_place(path)
    if fresh:
        throw_away(path)
    else:
        check_question(path, asked)
    return open_run(path, COMPARISON, "measuring", asked, fresh=fresh)


def check_question(path: Path, asked: Mapping[str, Any], *, busy: bool = False) -> None:
    """Check that a run folder holds no run of something else."""
    former = read_comparison(path)
    if former:
        bound = bound_by(former["asked"], None if busy else finished_names(path))
        remedy = "Choose another folder, or pass {fresh} to throw that run away"
        refuse_another(path, differences(bound, _parts(asked)), remedy, fresh=True)


def bound_by(former: Mapping[str, Any], finished: Collection[str] | None) -> dict[str, Any]:
    """Choose what of a question may not change: what has a footprint, and the settings if there is any; None is all."""
    parts = _parts(former)
    if finished is None:
        return parts
    kept = {f"{part}.{name.split('/')[i]}" for name in finished for i, part in enumerate(NAMED)}
    return {name: value for name, value in parts.items() if name in kept or (finished and name == "settings")}


def finished_names(path: Path) -> set[str]:
    """List the footprints of a run that are whole."""
    found = (path / FOOTPRINTS).glob(f"*/*/{FOOTPRINT_RECORD}")
    return {"/".join(file.parent.parts[-2:]) for file in found if not file.parent.name.startswith(".")}


def check_outside(run: Path, used: Iterable[str | Path]) -> None:
    """Check that nothing the run reads lies in the folder that is thrown away."""
    place = run.resolve()
    for given in used:
        path = Path(given).expanduser()
        if path.exists() and path.resolve().is_relative_to(place):
            raise UsageError(
                f"{{argument}} throws away the run in {run}, and {given} lies in it; choose another run folder",
                argument="fresh",
            )


def throw_away(run: Path) -> None:
    """Delete the footprints and tables of a run; ``run.json`` stays until the new run replaces it."""
    if not (run / RECORD).is_file():
        return
    _check_ours(run)
    places = [*_places(run)]
    for place in [run / FOOTPRINTS, *(run / FOOTPRINTS).glob("*"), *places]:
        if place.is_symlink():
            raise UsageError(
                f"{place} is a link, and {{argument}} follows none; remove it, or choose another run folder",
                argument="fresh",
            )
    for place in places:
        shutil.rmtree(place)
    for name in TABLES:
        (run / name).unlink(missing_ok=True)
    for folder in [*(run / FOOTPRINTS).glob("*"), run / FOOTPRINTS]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _parts(question: Mapping[str, Any]) -> dict[str, Any]:
    named = {f"{part}.{name}": value for part in NAMED for name, value in question.get(part, {}).items()}
    return {"settings": question.get("settings", {})} | named


def _check_ours(run: Path) -> None:
    file = run / RECORD
    try:
        record = json_file(file, "")
    except IntegrityError as error:
        if (run / FOOTPRINTS).is_dir():
            return
        raise UsageError(
            f"{file} cannot be read and there is no folder {FOOTPRINTS} beside it, so it may not be a run of "
            f"commonweight; nothing was deleted ({error}). Choose another folder"
        ) from error
    is_run = isinstance(record, dict) and record.get("format") == FORMAT
    if not is_run or record.get("study", COMPARISON.name) != COMPARISON.name:
        raise UsageError(f"{file} is not the record of a comparison; nothing was deleted. Choose another folder")


def _places(run: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        for place in (run / FOOTPRINTS).glob(depth):
            if place.is_dir() and (_is_partial(place) or (place / FOOTPRINT_RECORD).is_file()):
                yield place


def _is_partial(place: Path) -> bool:
    return place.name.startswith(".") and place.name.endswith(".partial")
