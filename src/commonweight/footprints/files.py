"""The layout of a footprint folder: ``footprint.json`` beside sharded ``*.safetensors``.

The layout follows Hugging Face checkpoints; a folder without ``footprint.json`` is not a footprint. The record places
every tensor of every group in a shard, and tells the size in bytes and the SHA-256 of every shard, as ``sha256sum``
gives it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import Kind
from commonweight.base.records import Format, folder_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "commonweight-footprint"
# Version 1: shards of float tensors (each the mean over its examples), one group for the whole, one per fold, one
# for the sample of the model's weights; of Fishers one of int64 digests of the rows, per fold (earlier ones lack it),
# and one of int64 source rows where they were given.
# Version 2: as 1, and "packed" names groups of masks with the shape of each; a shard holds their bits, eight to a byte.
# What holds no masks is written as version 1.
VERSION = 1
PACKED_VERSION = 2
RECORD = "footprint.json"
MAIN_GROUP = "footprint"
WEIGHTS_GROUP = "weights"
ROWS_GROUP = "rows"
SOURCE_ROWS_GROUP = "source_rows"
RECORD_BYTES = 2**28
FOOTPRINT_FOLDER = Kind("footprint", RECORD)
FOOTPRINT = Format(FORMAT, (VERSION, PACKED_VERSION), "a footprint", "measure again")
_KEYS = {"kind", "count", "fold_counts", "metadata", "spread", "groups", "shards"}


def fold_group(index: int) -> str:
    """Name the group of tensors that holds one fold."""
    return f"fold-{index:03d}"


def check_metadata(metadata: Any) -> None:
    """Refuse what JSON cannot say."""
    as_json(metadata)


def as_json(values: Any) -> str:
    """Write values as the text of a record."""
    try:
        return json.dumps(values, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata must be plain JSON values without nan: {error}") from None


def read_record(folder: Path) -> dict[str, Any]:
    """Read a footprint folder's record and check its layout."""
    path = folder / RECORD
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # said below
        if path.stat().st_size > RECORD_BYTES:
            raise IntegrityError(f"{path} is larger than {RECORD_BYTES} bytes: this is not a footprint record")
    record = folder_record(folder, RECORD, FOOTPRINT, _KEYS)
    if not _well_formed(record) or not _well_packed(record):
        raise IntegrityError(
            f"{path} does not have the layout of version {record['version']}: it was damaged or written by hand"
        )
    return record


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _well_formed(record: Mapping[str, Any]) -> bool:
    number = (int, float)
    return (
        isinstance(record["kind"], str)
        and isinstance(record["count"], int)
        and isinstance(record["metadata"], dict)
        and isinstance(record["fold_counts"], list)
        and all(isinstance(count, int) for count in record["fold_counts"])
        and isinstance(record["spread"], dict)
        and all(
            isinstance(sums, list) and len(sums) == 2 and all(isinstance(value, number) for value in sums)
            for sums in record["spread"].values()
        )
        and isinstance(record["shards"], dict)
        and all(isinstance(shard, dict) and {"bytes", "sha256"} <= set(shard) for shard in record["shards"].values())
        and isinstance(record["groups"], dict)
        and all(
            isinstance(members, dict) and all(isinstance(shard, str) for shard in members.values())
            for members in record["groups"].values()
        )
    )


def _well_packed(record: Mapping[str, Any]) -> bool:
    packed = record.get("packed", {})
    return (
        (record["version"] == PACKED_VERSION) == ("packed" in record)
        and isinstance(packed, dict)
        and all(
            isinstance(shapes, dict)
            and set(shapes) == set(record["groups"].get(group, {}))
            and all(map(_is_shape, shapes.values()))
            for group, shapes in packed.items()
        )
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(entries) is int and entries >= 0 for entries in value)
