"""Footprint folders: ``footprint.json`` beside sharded ``*.safetensors``.

The layout follows Hugging Face checkpoints. A folder is written under a temporary name beside its place, flushed to
disk and renamed, so it is there whole or not at all; a folder without ``footprint.json`` is not a footprint. Reading
executes nothing: JSON and safetensors only. Tensors are read one at a time, or one slice at a time, when asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from commonweight.errors import IntegrityError, MeasurementError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor

FORMAT = "commonweight-footprint"
# Version 1: shards of float tensors (each the mean over its examples), one group for the whole, one per fold, one
# for the sample of the model's weights.
VERSION = 1
RECORD = "footprint.json"
MAIN_GROUP = "footprint"
WEIGHTS_GROUP = "weights"
SHARD_BYTES = 2**31
SMALLEST_SHARD_BYTES = 2**25
RECORD_BYTES = 2**28
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+\.safetensors")


def fold_group(index: int) -> str:
    """Name the group of tensors that holds one fold.

    Args:
        index: Which fold, from 0.

    Returns:
        The name.
    """
    return f"fold-{index:03d}"


def check_metadata(metadata: Any) -> None:
    """Refuse what JSON cannot say.

    Args:
        metadata: Supposed to be plain JSON values.

    Raises:
        UsageError: If they are not.
    """
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"metadata must be plain JSON values without nan: {error}") from None


class FolderWriter:
    """Writes a footprint folder, group by group; nothing shows under its name before :meth:`commit`."""

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite
        self._check_free()
        self._partial = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}.partial")
        self._groups: dict[str, dict[str, str]] = {}
        self._shards: dict[str, dict[str, Any]] = {}

    def _check_free(self) -> None:
        there = (self.folder / RECORD).is_file()
        if self.folder.exists() and not (self._overwrite and there):
            remedy = "pass overwrite=True to replace it" if there else "choose another folder"
            raise UsageError(f"{self.folder} exists already: {remedy}")

    def __enter__(self) -> Self:
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, group: str, tensors: Mapping[str, Tensor]) -> None:
        """Write one group of tensors, in shards of an eighth of the group, from 32 MiB to 2 GiB.

        A shard is copied once more while it is written, so shards bound the memory of writing. A larger tensor is a
        shard of its own.

        Args:
            group: Name of the group.
            tensors: The tensors by name; floating ones must be finite.

        Raises:
            MeasurementError: If a tensor holds nan or infinity.
        """
        members = self._groups.setdefault(group, {})
        whole = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        limit = min(SHARD_BYTES, max(SMALLEST_SHARD_BYTES, whole // 8))
        shard: dict[str, Tensor] = {}
        size = 0
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not math.isfinite(float(tensor.sum())) and not tensor.isfinite().all():
                raise MeasurementError(f"{name} holds nan or infinity: expected finite numbers, nothing was written")
            bytes_here = tensor.numel() * tensor.element_size()
            if shard and size + bytes_here > limit:
                self._write(group, shard, members)
                shard, size = {}, 0
            shard[name] = tensor
            size += bytes_here
        if shard:
            self._write(group, shard, members)

    def commit(self, record: Mapping[str, Any]) -> None:
        """Write ``footprint.json`` and give the folder its name.

        Args:
            record: Everything but the tensors, plain JSON values.

        Raises:
            UsageError: If the record holds something JSON cannot say, or the folder has appeared meanwhile: the
                footprint is then kept beside it, under a name that the message tells.
            OSError: If the folder cannot be renamed; an earlier footprint is then put back.
        """
        whole = {
            "format": FORMAT,
            "version": VERSION,
            **record,
            "groups": self._groups,
            "shards": self._shards,
        }
        try:
            text = json.dumps(whole, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"metadata must be plain JSON values without nan: {error}") from None
        path = self._partial / RECORD
        path.write_text(text + "\n", encoding="utf-8")
        _flush(path)
        _flush(self._partial)
        previous = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}.replaced")
        try:
            self._check_free()
        except UsageError as error:
            kept = self.folder.with_name(f"{self.folder.name}.kept-{uuid.uuid4().hex[:8]}")
            self._partial.rename(kept)
            raise UsageError(f"{error}; the finished footprint is kept in {kept}") from None
        replaces = self.folder.exists()
        if replaces:
            self.folder.rename(previous)
        try:
            self._partial.rename(self.folder)
        except OSError:
            if replaces:
                previous.rename(self.folder)
            raise
        _flush(self.folder.parent)
        shutil.rmtree(previous, ignore_errors=True)

    def _write(self, group: str, tensors: Mapping[str, Tensor], members: dict[str, str]) -> None:
        shard = f"{group}-{sum(name.startswith(group + '-') for name in self._shards):05d}.safetensors"
        path = self._partial / shard
        save_file(_apart(tensors), path)
        path.chmod(0o666 & ~_umask())
        _flush(path)
        self._shards[shard] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        members.update(dict.fromkeys(tensors, shard))


class FolderReader:
    """Opens a footprint folder; checks names and sizes at once, hashes on request."""

    def __init__(self, folder: str | Path, *, check_hashes: bool = False) -> None:
        self.folder = Path(folder)
        self.record = self._read_record()
        for name, shard in self.record["shards"].items():
            path = self.folder / name
            if not _SHARD_NAME.fullmatch(name):
                raise IntegrityError(
                    f"{self.folder}: {name!r} is not a shard name: refusing to read outside the folder"
                )
            if not path.is_file():
                raise IntegrityError(f"{self.folder}: shard {name} is missing: copy the folder again, whole")
            if path.stat().st_size != shard["bytes"]:
                raise IntegrityError(
                    f"{self.folder}: shard {name} has {path.stat().st_size} bytes, expected {shard['bytes']}: "
                    "the copy is incomplete or damaged"
                )
            if check_hashes and sha256(path) != shard["sha256"]:
                raise IntegrityError(
                    f"{self.folder}: the SHA-256 of shard {name} is not the recorded one: it was changed"
                )

    def group(self, name: str, *, missing_ok: bool = False) -> Mapping[str, Tensor]:
        """Open one group of tensors.

        Args:
            name: Name of the group.
            missing_ok: Give an empty mapping when the folder has no such group.

        Returns:
            A lazy mapping from parameter name to tensor.

        Raises:
            IntegrityError: If the group is not there.
        """
        members = self.record["groups"].get(name)
        if members is None:
            if missing_ok:
                return {}
            raise IntegrityError(f"{self.folder}: {RECORD} names no group {name!r}: the folder is incomplete")
        outside = sorted(set(members.values()) - set(self.record["shards"]))
        if outside:
            raise IntegrityError(
                f"{self.folder}: {RECORD} places tensors in {outside[0]!r}, which is no shard it lists"
            )
        return StoredTensors(self.folder, members)

    def _read_record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        if not self.folder.is_dir():
            raise UsageError(f"expected a footprint folder, and {self.folder} is not a folder")
        if not path.is_file():
            raise IntegrityError(f"{self.folder} has no {RECORD}: it is not a footprint, or was never finished")
        if path.stat().st_size > RECORD_BYTES:
            raise IntegrityError(f"{path} is larger than {RECORD_BYTES} bytes: this is not a footprint record")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{path} is not JSON: {error}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise IntegrityError(f"{path} is not a {FORMAT} record")
        if record.get("version") != VERSION:
            raise IntegrityError(
                f"{path} has format version {record.get('version')!r}, this release reads version {VERSION}: "
                "read it with the release that wrote it, or measure again"
            )
        missing = {"kind", "count", "fold_counts", "metadata", "spread", "groups", "shards"} - set(record)
        if missing:
            raise IntegrityError(f"{path} lacks {', '.join(sorted(missing))}: it was damaged or written by hand")
        if not _well_formed(record):
            raise IntegrityError(
                f"{path} does not have the layout of version {VERSION}: it was damaged or written by hand"
            )
        return record


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


class StoredTensors(Mapping[str, "Tensor"]):
    """Tensors on disk, each read when it is asked for."""

    def __init__(self, folder: Path, members: Mapping[str, str]) -> None:
        self._folder = folder
        self._members = dict(members)

    def __getitem__(self, name: str) -> Tensor:
        with self._open(name) as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one tensor along its first dimension.

        Args:
            name: Parameter name; the tensor must have at least one dimension.
            start: First row.
            stop: One past the last row.

        Returns:
            The slice, ``[stop - start, ...]``.
        """
        with self._open(name) as shard:
            part: Tensor = shard.get_slice(name)[start:stop]
        return part

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape without reading it.

        Args:
            name: Parameter name.

        Returns:
            Its shape.
        """
        with self._open(name) as shard:
            return tuple(shard.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        path = self._folder / self._members[name]
        try:
            with safe_open(path, framework="pt") as shard:
                yield shard
        except (SafetensorError, OSError) as error:
            raise IntegrityError(f"{path} cannot be read: {error}") from None


def sha256(path: Path) -> str:
    """Hash a file.

    Args:
        path: The file.

    Returns:
        Its SHA-256, in hexadecimal.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, those that share memory as copies: safetensors refuses them otherwise."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        memory = here.untyped_storage().data_ptr()
        apart[name] = here.clone() if memory in seen else here
        seen.add(memory)
    return apart


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
