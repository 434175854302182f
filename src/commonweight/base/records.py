"""JSON records that name their format and version: read whole, or refused with what to do."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Format:
    """What a record must say of itself."""

    name: str
    """Its ``format``."""

    versions: tuple[int, ...]
    """The values of ``version`` that this release reads."""

    words: str
    """What it records, with its article: ``a footprint``."""

    again: str
    """What makes a new one: ``measure again``."""


def folder_record(folder: Path, file: str, form: Format, keys: Iterable[str]) -> dict[str, Any]:
    """Read the record that a folder is known by."""
    path = folder / file
    if not folder.is_dir():
        raise UsageError(f"expected the folder of {form.words}, and {folder} is not a folder")
    if not path.is_file():
        raise IntegrityError(
            f"{folder} has no {file}: it is not {form.words}, or was never finished; give another folder, "
            f"or {form.again}"
        )
    try:
        written = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error}") from None
    return record_of(written, str(path), form, keys)


def record_of(written: str | bytes, name: str, form: Format, keys: Iterable[str]) -> dict[str, Any]:
    """Read a record from its text."""
    try:
        record = json.loads(written)
    except (TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{name} is not JSON ({error}): it was damaged; {form.again}") from None
    if not isinstance(record, dict) or record.get("format") != form.name:
        raise IntegrityError(f"{name} is not a {form.name} record: give that of {form.words}")
    if record.get("version") not in form.versions:
        versions = " and ".join(map(str, form.versions))
        raise IntegrityError(
            f"{name} has format version {record.get('version')!r}, this release reads version {versions}: read it with "
            f"the release that wrote it, or {form.again}"
        )
    if missing := sorted(set(keys) - set(record)):
        raise IntegrityError(f"{name} lacks {', '.join(missing)}: it was damaged or written by hand; {form.again}")
    return record


def without_nan(value: Any) -> Any:
    """Turn undefined numbers into null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
