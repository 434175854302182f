"""JSON records that name their format and version, and carry a seal: read whole, or refused with what to do."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MOST_BYTES = 2**26
"""A larger JSON file is not read: hostile ones take 26 times their size of memory."""

SEAL = "seal"
"""Key of the SHA-256 of everything else that a record says, as compact JSON in the order of the record."""


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

    most_bytes: int = MOST_BYTES
    """The largest file that is read."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add its seal to a record."""
    return {**record, SEAL: _seal_of(record)}


def unsealed(record: Mapping[str, Any], name: str, remedy: str) -> dict[str, Any]:
    """Check the seal of a record, and give what it seals."""
    content = dict(record)
    written, found = content.pop(SEAL, None), _seal_of(content)
    if written != found:
        raise IntegrityError(
            f"{name} is not as it was written: expected the seal {written!r}, its content gives {found!r}; it was "
            f"damaged or edited: {remedy}"
        )
    return content


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def json_file(path: Path, remedy: str, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file that may be damaged, or made by a stranger."""
    try:
        size = path.stat().st_size
        written = path.read_bytes() if size <= most_bytes else b""
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {remedy}") from None
    if size > most_bytes:
        raise IntegrityError(f"{path} has {size} bytes, expected at most {most_bytes}: it is no such file; {remedy}")
    return _parsed(written, str(path), remedy)


def _parsed(written: str | bytes, name: str, remedy: str) -> Any:
    try:
        return json.loads(written)
    except (TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{name} is not JSON ({error}): it was damaged; {remedy}") from None


def folder_record(folder: Path, file: str, form: Format, keys: Iterable[str]) -> dict[str, Any]:
    """Read the record that a folder is known by."""
    path = folder / file
    if not folder.is_dir():
        raise UsageError(f"expected the folder of {form.words}, and {folder} is not a folder")
    if not path.is_file():
        within = sorted(found.parent.name for found in folder.glob(f"*/{file}"))
        remedy = f"give {folder / within[0]}" if within else f"give another folder, or {form.again}"
        raise IntegrityError(f"{folder} has no {file}: it is not {form.words}, or was never finished; {remedy}")
    return _checked(json_file(path, form.again, form.most_bytes), str(path), form, keys)


def record_of(written: str | bytes, name: str, form: Format, keys: Iterable[str]) -> dict[str, Any]:
    """Read a record from its text."""
    return _checked(_parsed(written, name, form.again), name, form, keys)


def _checked(record: Any, name: str, form: Format, keys: Iterable[str]) -> dict[str, Any]:
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
    return unsealed(record, name, form.again)


def without_nan(value: Any) -> Any:
    """Turn undefined numbers into null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
