"""Where a footprint goes: checked before the heavy work, replaced only once the new one is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base import folders
from commonweight.base.folders import check_writable
from commonweight.footprints.files import RECORD

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["check_writable", "checked_output", "replacing"]

FOOTPRINT = folders.Kind("footprint", RECORD, replace="--overwrite")


def checked_output(folder: Path, *, overwrite: bool = False) -> Path:
    """Check that a footprint may be written somewhere: see :func:`commonweight.base.folders.checked_output`."""
    return folders.checked_output(folder, FOOTPRINT, overwrite=overwrite)


def replacing(folder: Path, *, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Write a footprint beside a folder, then take the folder's place: see :func:`commonweight.base.folders.replacing`.

    Args:
        folder: The final place, as :func:`checked_output` gave it.
        overwrite: Whether a footprint that is there may go.

    Returns:
        A context that gives where to write.
    """
    return folders.replacing(folder, FOOTPRINT, overwrite=overwrite)
