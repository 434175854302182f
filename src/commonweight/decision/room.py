"""Room on the disk, looked at before something large is written."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SPARE = 16 * 2**20
"""Bytes beside the weights: configuration, tokenizer, records, what the file system needs."""


def check_room(place: Path, size: int) -> None:
    """Check that something fits on the disk.

    Args:
        place: The file or folder to be made.
        size: Its bytes.

    Raises:
        UsageError: If there is less room than these, and 16 MiB beside them.
    """
    free = free_bytes(place)
    if free < size + SPARE:
        raise UsageError(
            f"{place} needs {_shown(size + SPARE)} of disk, and {_shown(free)} are free there; make room, or choose a "
            "folder on another disk"
        )


def free_bytes(place: Path) -> int:
    """Tell how much is free where something is to be made.

    Args:
        place: The file or folder to be made.

    Returns:
        Free bytes of that disk.
    """
    anchor = place.absolute()
    while not anchor.exists():
        anchor = anchor.parent
    return shutil.disk_usage(anchor).free


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
