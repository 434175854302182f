"""Where a result goes: checked before the heavy work, replaced only once the new one is whole."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.base.text import Note

PROBE = ".commonweight-"

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]

LEFTOVER = re.compile(
    rf"{re.escape(PROBE)}.*|\.(?P<name>.+)\.(?P<host>[0-9a-f]{{8}})-(?P<pid>\d{{1,9}})-[0-9a-f]{{8}}\.[a-z]+"
)
"""Probes of whether a place can be written to, and names for the time being: ``.run.json.HOST-PID-DIGITS.partial``."""

FORMER = "former"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's renameat2."""


@dataclass(frozen=True)
class Kind:
    """A kind of result that is a folder."""

    words: str
    """What it is called: ``footprint``."""

    record: str
    """A file that every finished folder of this kind has, and no other."""


class TakenError(UsageError):
    """Another process gave a folder its name while the work went on; ``kept`` holds the work."""

    kept: Path


def checked_output(folder: Path, kind: Kind, *, overwrite: bool = False) -> Path:
    """Check that a result may be written somewhere."""
    try:
        place = folder.resolve()
        is_there = (place / kind.record).is_file()
        is_taken = place.exists() and not is_there and not (place.is_dir() and not any(place.iterdir()))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UsageError(f"{folder} cannot be looked into: {error}; choose another folder") from error
    if is_taken:
        raise UsageError(f"{folder} exists and is not a {kind.words}; choose another folder")
    if is_there and not overwrite:
        raise UsageError(
            f"{folder} holds a {kind.words} already; choose another folder, or pass {{overwrite}} to replace it",
            overwrite=True,
        )
    check_writable(place)
    clear_leftovers(place.parent, f".{glob.escape(place.name)}.*")
    return place


def is_leftover(path: Path) -> bool:
    """Tell whether a file or folder is what a killed process of ours left beside its work, and so no content."""
    return LEFTOVER.fullmatch(path.name) is not None


def check_writable(place: Path) -> None:
    """Check that a folder can be made somewhere, by making one beside it and taking it away again."""
    try:
        place = place.resolve()
        anchor = _existing(place.parent)
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=anchor) as probe:
            inner = place.relative_to(anchor)
            (Path(probe) / for_the_time_being(inner, FORMER)).mkdir(parents=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{place} cannot be written to: {error}; choose another folder") from error


@contextlib.contextmanager
def replacing(folder: Path, kind: Kind, *, overwrite: bool = False) -> Iterator[Path]:
    """Write to a place beside a folder, then take the folder's place; if the work fails, what is there stays."""
    beside = for_the_time_being(folder, "new")
    try:
        yield beside
        for file in beside.rglob("*.safetensors"):
            follow_umask(file)
        take_place(beside, folder, kind, overwrite=overwrite)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def take_place(beside: Path, folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Give a finished folder its name: at every moment the old or the new one has it."""
    replaces = overwrite and (folder / kind.record).is_file()
    try:
        if replaces:
            _exchange(beside, folder)
        else:
            beside.rename(folder)  # succeeds only where nothing or an empty folder is
    except OSError as error:
        kept = folder.with_name(f"{folder.name}.kept-{uuid.uuid4().hex[:8]}")
        beside.rename(kept)
        taken = TakenError(
            f"{folder} was taken while the work went on; the new {kind.words} is in {kept}. Rename it, or run again "
            "with {overwrite}",
            overwrite=True,
        )
        taken.kept = kept
        raise taken from error
    flush(folder.parent)
    if replaces:
        shutil.rmtree(beside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders, in one step where the system can."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if swap is not None and swap(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return
    former = for_the_time_being(other, FORMER)
    other.rename(former)
    try:
        one.rename(other)
    except OSError:
        former.rename(other)
        raise
    former.rename(one)


def for_the_time_being(path: Path, ending: str) -> Path:
    """Name what this process makes beside a path; when the process is gone, it can go too."""
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{ending}")


def clear_leftovers(folder: Path, names: str = ".*") -> list[Path]:
    """Remove what dead processes of this machine left in a folder; a former folder that nothing replaced comes back."""
    found = []
    for path in sorted(folder.glob(names)):
        of = LEFTOVER.fullmatch(path.name)
        if of is None or of["host"] != HOST or _is_alive(int(of["pid"])):
            continue
        found.append(path)
        place = path.with_name(of["name"])
        if path.name.endswith(f".{FORMER}") and not place.exists():
            path.rename(place)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def clear_run(run: Path, note: Note) -> None:
    """Remove what dead processes of this machine left anywhere in a run, and say so."""
    found = [path for place, _, _ in os.walk(run) for path in clear_leftovers(Path(place))]
    if found:
        note(f"removed what an interrupted run left: {', '.join(path.name for path in found)}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; what is written later is not on disk before it."""
    partial = for_the_time_being(path, "partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def follow_umask(file: Path) -> None:
    """Let others read a file as far as the umask allows: safetensors writes for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


SPARE = 16 * 2**20
"""Bytes beside the weights: configuration, tokenizer, records, what the file system needs."""


def check_room(place: Path, size: int) -> None:
    """Check that something fits on the disk."""
    free = free_bytes(place)
    if free < size + SPARE:
        raise UsageError(
            f"{place} needs {_shown(size + SPARE)} of disk, and {_shown(free)} are free there; make room, or choose a "
            "folder on another disk"
        )


def free_bytes(place: Path) -> int:
    """Tell how much is free where something is to be made."""
    return shutil.disk_usage(_existing(place.absolute())).free


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.parents) if path.exists())


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
