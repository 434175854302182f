"""Where a result goes: checked before the heavy work, replaced only once the new one is whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = ".commonweight-"

LEFTOVER = re.compile(rf"{re.escape(PROBE)}.*|\..+\.[0-9a-f]{{32}}\.[a-z]+")
"""Probes of whether a place can be written to, and names for the time being: ``.run.json.<32 digits>.partial``."""


@dataclass(frozen=True)
class Kind:
    """A kind of result that is a folder."""

    words: str
    """What it is called: ``footprint``."""

    record: str
    """A file that every finished folder of this kind has, and no other."""


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
            (Path(probe) / inner.with_name(f".{inner.name}.{uuid.uuid4().hex}.replaced")).mkdir(parents=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{place} cannot be written to: {error}; choose another folder") from error


@contextlib.contextmanager
def replacing(folder: Path, kind: Kind, *, overwrite: bool = False) -> Iterator[Path]:
    """Write to a place beside a folder, then take the folder's place; if the work fails, what is there stays."""
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.new")
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for file in beside.rglob("*.safetensors"):
        follow_umask(file)
    former = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.former")
    replaces = overwrite and (folder / kind.record).is_file()
    if replaces:
        folder.rename(former)
    try:
        beside.rename(folder)  # succeeds only where nothing or an empty folder is
    except OSError as error:
        kept = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}")
        beside.rename(kept)
        raise UsageError(
            f"{folder} was taken while the work went on; the new {kind.words} is in {kept}. Rename it, or run again "
            "with {overwrite}",
            overwrite=True,
        ) from error
    flush(folder.parent)
    if replaces:
        shutil.rmtree(former)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
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
