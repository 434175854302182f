"""The folder of a run: what was asked for, what is done, and whether the same command may go on.

``run.json`` says which models, data and settings the folder belongs to. Asking for the same again continues; adding
models or data is allowed; anything else is refused with the differences listed, so that no table mixes two questions.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECORD = "run.json"
FORMAT = "commonweight-run"
VERSION = 1
PLACES = frozenset({"name", "path", "checkpoint"})
"""Keys of an identity that say where something lies, not what it is."""

MOST_SHOWN = 8
_ABSENT = object()


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
            ``footprints/<model>--<data>``.
        """
        return self.path / "footprints" / name.replace("/", "--")

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
        partial.write_text(text, encoding="utf-8")
        Path(partial).replace(path)
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
        path: The run folder.
        asked: ``settings``, ``models`` and ``data``: plain JSON values, the last two by name.
        fresh: Throw away a run that is there.

    Returns:
        The run, its record on disk.

    Raises:
        UsageError: If the folder holds something else, or a run that asks for something else.
    """
    check_place(path)
    asked = json.loads(json.dumps(asked))
    former = None if fresh else read_record(path)
    if former is not None:
        found = list(differences(former, asked))
        if found:
            shown = "; ".join(found[:MOST_SHOWN]) + (
                f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
            )
            raise UsageError(
                f"{path} holds a run of something else: {shown}. Choose another folder, or pass --fresh to throw that "
                "run away"
            )
    elif (path / RECORD).is_file():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, {"format": FORMAT, "version": VERSION, "status": "measuring"})
    run.update(**asked)
    return run


def check_place(path: Path) -> None:
    """Check, before any work, that a folder is free for a run or holds one.

    Args:
        path: The run folder.

    Raises:
        UsageError: If it is a file or a folder with other things in it.
    """
    if path.is_file():
        raise UsageError(f"{path} is a file; a run needs a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / RECORD).is_file():
        raise UsageError(f"{path} is not empty and holds no {RECORD}, so it is not a run; choose another folder")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read what a run folder says of itself.

    Args:
        path: The run folder.

    Returns:
        The record; None if there is no run.

    Raises:
        IntegrityError: If the record is damaged or of another format.
    """
    file = path / RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{file} is damaged ({error}); pass --fresh to start the run over") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise IntegrityError(f"{file} is not a {FORMAT} record of version {VERSION}; choose another folder")
    return record


def differences(former: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """List what stands in the way of going on with a run.

    Args:
        former: Record of the run.
        asked: What is asked for now; it may have more models and data.

    Yields:
        One clause per difference.

    Example:
        >>> list(differences({"settings": {"folds": 1}, "models": {}}, {"settings": {"folds": 8}, "models": {"a": {}}}))
        ['settings.folds was 1, is now 8']
    """
    for key in ("settings", "models", "data"):
        before, now = former.get(key, {}), asked.get(key, {})
        if key != "settings":
            now = {name: value for name, value in now.items() if name in before}
        yield from _differences(key, before, now)


def same_identity(former: Any, now: Any) -> bool:
    """Tell whether two identities name the same thing, wherever it lies.

    Args:
        former: An identity.
        now: Another.

    Returns:
        Whether they differ in nothing but places.
    """
    return not list(_differences("", former, json.loads(json.dumps(now))))


def _differences(where: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if key not in PLACES:
                yield from _differences(f"{where}.{key}", before.get(key, _ABSENT), now.get(key, _ABSENT))
    elif before != now:
        yield f"{where} was {_show(before)}, is now {_show(now)}"


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, dict):
        return "present"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"
