"""The folder of a run: which question it belongs to, where its footprints lie, and what of it may be thrown away.

``run.json`` says which models, data and settings the folder belongs to. Asking for the same again continues; adding
models or data is allowed; anything else is refused with the differences listed, so that no table mixes two questions.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.folders import is_leftover, write_whole
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.studies.run.record import FORMAT, RECORD, VERSION, differences, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


FOOTPRINTS = "footprints"


MOST_SHOWN = 8


@dataclass(frozen=True)
class RunFolder:
    """An open run."""

    path: Path
    record: dict[str, Any]

    def footprint_folder(self, name: str) -> Path:
        """Name the folder of one footprint."""
        return self.path / FOOTPRINTS / name

    def write(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        path = self.path / name
        write_whole(path, text.encode())
        return path

    def update(self, **changes: Any) -> None:
        """Change the record and write it."""
        self.record.update(changes)
        self.write(RECORD, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")


def open_run(path: Path, asked: Mapping[str, Any], *, fresh: bool = False) -> RunFolder:
    """Start a run, or go on with one that asks for the same."""
    path = path.resolve()
    check_place(path)
    asked = json.loads(json.dumps(asked))
    if fresh:
        throw_away(path)
    else:
        check_question(path, asked)
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, {"format": FORMAT, "version": VERSION, "status": "measuring"})
    run.update(**asked)
    return run


def check_question(path: Path, asked: Mapping[str, Any], *, busy: bool = False) -> None:
    """Check that a run folder holds no run of something else."""
    former = read_record(path)
    if former is None:
        return
    finished = None if busy else finished_names(path)
    found = list(differences(former, json.loads(json.dumps(asked)), finished=finished))
    if found:
        shown = "; ".join(found[:MOST_SHOWN]) + (
            f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        )
        raise UsageError(
            f"{path} holds a run of something else: {shown}. Choose another folder, or pass --fresh to throw that "
            "run away"
        )


def check_place(path: Path) -> None:
    """Check, before any work, that a folder is free for a run or holds one."""
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a run needs a folder")
        if path.is_dir() and not all(map(is_leftover, path.iterdir())) and not (path / RECORD).is_file():
            raise UsageError(f"{path} is not empty and holds no {RECORD}, so it is not a run; choose another folder")
    except OSError as error:
        raise UsageError(f"{path} cannot be looked into: {error}; choose another folder") from error


def finished_names(path: Path) -> set[str]:
    """List the footprints of a run that are whole."""
    found = (path / FOOTPRINTS).glob(f"*/*/{FOOTPRINT_RECORD}")
    return {"/".join(file.parent.parts[-2:]) for file in found if not file.parent.name.startswith(".")}


TABLES = ("overlap.json", "overlap.safetensors", "overlap.md")


def check_outside(run: Path, used: Iterable[str | Path]) -> None:
    """Check that nothing the run reads lies in the folder that is thrown away."""
    place = run.resolve()
    for given in used:
        path = Path(given).expanduser()
        if path.exists() and path.resolve().is_relative_to(place):
            raise UsageError(f"--fresh throws away the run in {run}, and {given} lies in it; choose another run folder")


def throw_away(run: Path) -> None:
    """Delete the footprints and tables of a run; ``run.json`` stays until the new run replaces it."""
    if not (run / RECORD).is_file():
        return
    _check_ours(run)
    places = [*_places(run)]
    for place in [run / FOOTPRINTS, *(run / FOOTPRINTS).glob("*"), *places]:
        if place.is_symlink():
            raise UsageError(f"{place} is a link, and --fresh follows none; remove it, or choose another run folder")
    for place in places:
        shutil.rmtree(place)
    for name in TABLES:
        (run / name).unlink(missing_ok=True)
    for folder in [*(run / FOOTPRINTS).glob("*"), run / FOOTPRINTS]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def remove_partial(run: Path) -> None:
    """Delete what killed measurements left in a run; only to be called while no other process works in it."""
    for place in _places(run):
        if _is_partial(place) and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
    for file in run.glob(".*.partial"):
        if is_leftover(file) and file.is_file():
            file.unlink()


def _check_ours(run: Path) -> None:
    file = run / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if (run / FOOTPRINTS).is_dir():
            return
        raise UsageError(
            f"{file} cannot be read and there is no folder {FOOTPRINTS} beside it, so it may not be a run of "
            f"commonweight; nothing was deleted ({error}). Choose another folder"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{file} is not a {FORMAT} record; nothing was deleted. Choose another folder")


def _places(run: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        for place in (run / FOOTPRINTS).glob(depth):
            if place.is_dir() and (_is_partial(place) or (place / FOOTPRINT_RECORD).is_file()):
                yield place


def _is_partial(place: Path) -> bool:
    return place.name.startswith(".") and place.name.endswith(".partial")
