"""The folder of a run: which question it belongs to, where its footprints lie, and what of it may be thrown away.

``run.json`` says which models, data and settings the folder belongs to. Asking for the same again continues; adding
models or data is allowed; anything else is refused with the differences listed, so that no table mixes two questions.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.errors import UsageError
from commonweight.footprint.files import RECORD as FOOTPRINT_RECORD
from commonweight.place import is_leftover
from commonweight.studies.run_record import FORMAT, RECORD, VERSION, differences, read_record
from commonweight.studies.throw_away import throw_away

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOOTPRINTS = "footprints"
MOST_SHOWN = 8


@dataclass(frozen=True)
class RunFolder:
    """An open run."""

    path: Path
    record: dict[str, Any]

    def footprint_folder(self, name: str) -> Path:
        """Name the folder of one footprint.

        Args:
            name: ``model/data``.

        Returns:
            ``footprints/<model>/<data>``.
        """
        return self.path / FOOTPRINTS / name

    def write(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all.

        Args:
            name: Its name in the run folder.
            text: What it holds.

        Returns:
            Its path.
        """
        path = self.path / name
        partial = path.with_name(f".{name}.{uuid.uuid4().hex}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def update(self, **changes: Any) -> None:
        """Change the record and write it.

        Args:
            **changes: New values by key.
        """
        self.record.update(changes)
        self.write(RECORD, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")


def open_run(path: Path, asked: Mapping[str, Any], *, fresh: bool = False) -> RunFolder:
    """Start a run, or go on with one that asks for the same.

    Args:
        path: The run folder, or a link to it.
        asked: ``settings``, ``models`` and ``data``: plain JSON values, the last two by name.
        fresh: Throw away the footprints and tables of a run that is there; what is not of the run stays.

    Returns:
        The run, its record on disk.

    Raises:
        UsageError: If the folder holds something else, or a run that asks for something else.
    """
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
    """Check that a run folder holds no run of something else.

    Args:
        path: The run folder.
        asked: As for :func:`open_run`.
        busy: Whether another process works in it, whose question holds before anything is finished.

    Raises:
        UsageError: If it does; the differences are listed.
    """
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
    """Check, before any work, that a folder is free for a run or holds one.

    Args:
        path: The run folder.

    Raises:
        UsageError: If it is a file, a folder with other things in it, or cannot be looked into.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a run needs a folder")
        if path.is_dir() and not all(map(is_leftover, path.iterdir())) and not (path / RECORD).is_file():
            raise UsageError(f"{path} is not empty and holds no {RECORD}, so it is not a run; choose another folder")
    except OSError as error:
        raise UsageError(f"{path} cannot be looked into: {error}; choose another folder") from error


def finished_names(path: Path) -> set[str]:
    """List the footprints of a run that are whole.

    Args:
        path: The run folder.

    Returns:
        Their names, ``model/data``.
    """
    found = (path / FOOTPRINTS).glob(f"*/*/{FOOTPRINT_RECORD}")
    return {"/".join(file.parent.parts[-2:]) for file in found if not file.parent.name.startswith(".")}
