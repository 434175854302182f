"""Where a result goes: checked before the heavy work, replaced only once the new one is whole."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from typing import TYPE_CHECKING

from commonweight.errors import UsageError
from commonweight.footprint.files import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def checked_output(folder: Path, *, overwrite: bool = False) -> None:
    """Check that a footprint may be written somewhere.

    Args:
        folder: Where to.
        overwrite: Whether a footprint that is there may go.

    Raises:
        UsageError: If something is there that may not be replaced, or the place cannot be written to.
    """
    is_footprint = (folder / RECORD).is_file()
    if folder.exists() and not is_footprint:
        raise UsageError(f"{folder} exists and is not a footprint; choose another folder")
    if is_footprint and not overwrite:
        raise UsageError(
            f"{folder} holds a footprint already; choose another folder, or pass --overwrite to replace it"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder.parent} cannot be made: {error}; choose another folder") from error


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Write to a place beside a folder, then take the folder's place; if the work fails, the old one stays.

    Args:
        folder: The final place, free or a footprint that may go.

    Yields:
        Where to write.
    """
    if not folder.exists():
        yield folder
        return
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.new")
    try:
        yield beside
        former = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.former")
        folder.rename(former)
        beside.rename(folder)
        shutil.rmtree(former)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
