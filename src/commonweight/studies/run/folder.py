"""The folder of a run: free or taken, opened with its record, its files written whole and read with a remedy."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import is_leftover, write_whole
from commonweight.base.records import json_file, sealed, unsealed, without_nan
from commonweight.studies.run.record import RECORD, StudyKind, read_record
from commonweight.studies.run.results import RESULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

REMEDY = "remove it, and run the study again"


@dataclass(frozen=True)
class RunFolder:
    """An open run."""

    path: Path
    record: dict[str, Any]

    def write(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        write_whole(self.path / name, text)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Say in the record how long work took, and how it ended if it did not come to its end."""
        start = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.update(status="interrupted")
            raise
        except Exception:
            self.update(status="failed")
            raise
        finally:
            self.update(seconds=round(self.record["seconds"] + time.monotonic() - start, 1))

    def finish(self, result: str) -> None:
        """Write the result of a study and say that it is complete."""
        self.write(RESULT, result)
        self.update(status="complete")

    def update(self, **changes: Any) -> None:
        """Change the record and write it."""
        self.record.update(changes)
        self.write(RECORD, json.dumps(sealed(self.record), indent=1, ensure_ascii=False) + "\n")


def open_run(
    path: Path,
    kind: StudyKind,
    status: str,
    asked: Mapping[str, Any],
    grown: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
) -> RunFolder:
    """Write down whose run a folder holds; ``grown`` is what the run may be asked for more of later."""
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, kind.new_record(status, asked, grown or {}))
    run.update(seconds=0.0 if fresh else read_record(path, kind).get("seconds", 0.0))
    return run


def check_place(path: Path, record: str = RECORD) -> None:
    """Check, before any work, that a folder is free for a run or holds one, which is known by its record."""
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a run needs a folder")
        if path.is_dir() and not all(map(is_leftover, path.iterdir())) and not (path / record).is_file():
            raise UsageError(f"{path} is not empty and holds no {record}, so it is not a run; choose another folder")
    except OSError as error:
        raise UsageError(f"{path} cannot be looked into: {error}; choose another folder") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file of a run whole or not at all, with its seal; undefined numbers are null."""
    write_whole(path, json.dumps(sealed(without_nan(dict(value))), indent=1) + "\n")


def read_text(path: Path) -> str:
    """Read a file of a run that carries a seal of its own."""
    _check_there(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {REMEDY}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run, as :func:`write_json` wrote it."""
    _check_there(path)
    found = json_file(path, REMEDY)
    if not isinstance(found, dict):
        raise IntegrityError(f"{path} holds no mapping: it was damaged; {REMEDY}")
    return unsealed(found, str(path), REMEDY)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path} is not there yet: run the study again, and it goes on where it stopped")
