"""A footprint folder, written and read: ``footprint.json`` beside sharded ``*.safetensors``.

The layout follows Hugging Face checkpoints; a folder without ``footprint.json`` is not a footprint. The record places
every tensor of every group in a shard, and tells the size in bytes and the SHA-256 of every shard, as ``sha256sum``
gives it. A folder is written under a temporary name beside its place, flushed and renamed, so that it is there whole or
not at all; shards are flushed and hashed in the background. Reading executes nothing, and reads one tensor or one slice
at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from typing_extensions import override

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.base.folders import Kind, flush, follow_umask, for_the_time_being, take_place
from commonweight.base.records import Format, folder_record, sealed
from commonweight.footprints.packed import BITS_PER_BYTE, Packed, byte_count
from commonweight.footprints.slices import Sliceable
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from torch import Tensor

FORMAT = "commonweight-footprint"
VERSION = 5
"""Shards of float tensors (each the mean over its examples), one group for the whole, one per fold, one for the sample
of the model's weights; of Fishers one of int64 digests of the rows, per fold, and one of int64 source rows where they
were given. ``packed`` names groups of masks with the shape of each; a shard holds their bits, eight to a byte. The
record is sealed."""

RECORD = "footprint.json"
MAIN_GROUP = "footprint"
WEIGHTS_GROUP = "weights"
ROWS_GROUP = "rows"
SOURCE_ROWS_GROUP = "source_rows"
FOOTPRINT_FOLDER = Kind("footprint", RECORD)
FOOTPRINT = Format(FORMAT, (VERSION,), "a footprint", "measure again")
_KEYS = {"kind", "count", "fold_counts", "metadata", "spread", "packed", "groups", "shards"}


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
    record = folder_record(folder, RECORD, FOOTPRINT, _KEYS)
    if not _well_formed(record) or not _well_packed(record):
        raise IntegrityError(
            f"{path} does not have the layout of version {record['version']}: it was damaged or written by hand"
        )
    return record


def sha256(path: Path) -> str:
    """Hash a file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}): copy the folder again, whole") from error


def _well_formed(record: Mapping[str, Any]) -> bool:
    number = (int, float)
    return (
        isinstance(record["kind"], str)
        and _is_count(record["count"])
        and isinstance(record["metadata"], dict)
        and isinstance(record["fold_counts"], list)
        and all(map(_is_count, record["fold_counts"]))
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


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _well_packed(record: Mapping[str, Any]) -> bool:
    packed = record["packed"]
    return isinstance(packed, dict) and all(
        isinstance(shapes, dict)
        and set(shapes) == set(record["groups"].get(group, {}))
        and all(map(_is_shape, shapes.values()))
        for group, shapes in packed.items()
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


SHARD_BYTES = 2**31
SMALLEST_SHARD_BYTES = 2**25


class FolderWriter:
    """Writes a footprint folder, group by group; nothing shows under its name before :meth:`commit`."""

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite
        self._check_free()
        self._partial = for_the_time_being(self.folder, "partial")
        self._groups: dict[str, dict[str, str]] = {}
        self._packed: dict[str, dict[str, list[int]]] = {}
        self._shards: dict[str, Future[dict[str, Any]]] = {}
        self._background = ThreadPoolExecutor(max_workers=1)

    def _check_free(self) -> None:
        there = os.path.isfile(self.folder / RECORD)  # noqa: PTH113 - False of a name that is too long, said below
        if os.path.exists(self.folder) and not (self._overwrite and there):  # noqa: PTH110
            remedy = "pass {overwrite} to replace it" if there else "choose another folder"
            raise UsageError(f"{self.folder} exists already: {remedy}", overwrite=True)

    def __enter__(self) -> Self:
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be made: {error}; choose another folder") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._background.shutdown(cancel_futures=True)
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, group: str, tensors: Mapping[str, Tensor]) -> None:
        """Write one group of tensors, in shards of an eighth of the group, from 32 MiB to 2 GiB."""
        # Contiguous tensors on the CPU are written from where they are (releases of safetensors before 0.8 copy the
        # shard); of others a shard holds copies while it is written. A larger tensor is a shard of its own.
        for earlier in self._shards.values():
            if earlier.done():
                earlier.result()
        members = self._groups.setdefault(group, {})
        if isinstance(tensors, Packed):
            shapes = {name: tensors.shape(name) for name in tensors}
            self._packed[group] = {name: list(shape) for name, shape in shapes.items()}
            tensors = {name: tensors.packed(name, 0, byte_count(shape)) for name, shape in shapes.items()}
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
        """Write ``footprint.json`` and give the folder its name."""
        whole = {
            "format": FORMAT,
            "version": VERSION,
            **record,
            "packed": self._packed,
            "groups": self._groups,
            "shards": {name: shard.result() for name, shard in self._shards.items()},
        }
        path = self._partial / RECORD
        check_metadata(record["metadata"])
        text = as_json(sealed(whole)) + "\n"
        if len(text.encode()) > FOOTPRINT.most_bytes:
            raise UsageError(
                f"the record of this footprint takes {len(text.encode())} bytes, and at most {FOOTPRINT.most_bytes} "
                "are read back: measure with fewer {folds}, or fewer parameters ({include})",
                folds=None,
                include=None,
            )
        path.write_text(text, encoding="utf-8")
        flush(path)
        flush(self._partial)
        take_place(self._partial, self.folder, FOOTPRINT_FOLDER, overwrite=self._overwrite)

    def _write(self, group: str, tensors: Mapping[str, Tensor], members: dict[str, str]) -> None:
        shard = f"{group}-{sum(name.startswith(group + '-') for name in self._shards):05d}.safetensors"
        path = self._partial / shard
        try:
            save_file(_apart(tensors), path)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
        follow_umask(path)
        self._shards[shard] = self._background.submit(_settle, path)
        members.update(dict.fromkeys(tensors, shard))


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


def _settle(path: Path) -> dict[str, Any]:
    """Flush a shard to disk, and give what the record says of it."""
    flush(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+\.safetensors")


class _State(NamedTuple):
    number: int
    size: int
    changed: int


class FolderReader:
    """Opens a footprint folder; checks names and sizes at once, hashes on request."""

    def __init__(self, folder: str | Path, *, check_hashes: bool = False) -> None:
        self.folder = Path(folder)
        opened = _state(self.folder / RECORD)
        self.record = read_record(self.folder)
        self._states: dict[str, _State | None] = {}
        for name, shard in self.record["shards"].items():
            path = self.folder / name
            if not _SHARD_NAME.fullmatch(name):
                raise IntegrityError(
                    f"{self.folder}: {name!r} is not a shard name: refusing to read outside the folder"
                )
            state = self._states[name] = _state(path)
            if state is None or not path.is_file():
                raise IntegrityError(f"{self.folder}: shard {name} is missing: copy the folder again, whole")
            if state.size != shard["bytes"]:
                raise IntegrityError(
                    f"{self.folder}: shard {name} has {state.size} bytes, expected {shard['bytes']}: "
                    "the copy is incomplete or damaged"
                )
            if check_hashes and sha256(path) != shard["sha256"]:
                raise IntegrityError(
                    f"{self.folder}: the SHA-256 of shard {name} is not the recorded one: it was changed"
                )
        if _state(self.folder / RECORD) != opened:
            raise IntegrityError(f"{self.folder} was replaced while it was opened; load it again")

    def group(self, name: str, *, missing_ok: bool = False) -> Mapping[str, Tensor]:
        """Open one group of tensors."""
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
        digests = {name: shard["sha256"] for name, shard in self.record["shards"].items()}
        stored = StoredTensors(self.folder, members, self._states, digests)
        shapes = self.record["packed"].get(name)
        return stored if shapes is None else StoredMasks(stored, {key: tuple(shape) for key, shape in shapes.items()})


_HASHED: set[tuple[str, _State | None]] = set()
"""Files that were found to be as they were written."""


@contextlib.contextmanager
def hashes_checked(groups: Iterable[Mapping[str, Tensor]]) -> Iterator[None]:
    """Hash the files of groups of tensors in a thread while they are read; a mismatch is raised at the end."""
    stored = [each.stored if isinstance(each, StoredMasks) else each for each in groups]
    with ThreadPoolExecutor(1) as pool:
        found = [pool.submit(each.check_hashes) for each in stored if isinstance(each, StoredTensors)]
        try:
            yield
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for each in found:
            each.result()


class StoredTensors(Sliceable):
    """Tensors on disk, each read when it is asked for, from the files that were opened and no others."""

    def __init__(
        self,
        folder: Path,
        members: Mapping[str, str],
        states: Mapping[str, _State | None],
        digests: Mapping[str, str],
    ) -> None:
        self._paths = {shard: str(folder / shard) for shard in set(members.values())}
        self._members = dict(members)
        self._states, self._digests = states, digests
        self._shards: dict[str, Any] = {}

    @classmethod
    def of_files(cls, paths: Iterable[Path]) -> StoredTensors:
        """Open the floating-point tensors of safetensors files that are no footprint, such as a checkpoint's."""
        members: dict[str, str] = {}
        folder = Path()
        for path in paths:
            folder = path.parent
            try:
                with safe_open(path, framework="pt") as shard:
                    floats = [key for key in shard.keys() if "F" in shard.get_slice(key).get_dtype()]  # noqa: SIM118
                    members |= dict.fromkeys(floats, path.name)
            except (SafetensorError, OSError) as error:
                raise IntegrityError(f"{path} cannot be read ({error}): it is damaged; copy it again") from None
        return cls(folder, members, {name: _state(folder / name) for name in set(members.values())}, {})

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files out of copies."""
        return self.__dict__ | {"_shards": {}}

    def check_hashes(self) -> None:
        """Hash every file, if this process has not hashed it as it is now, and compare with what was recorded."""
        for shard, path in self._paths.items():
            if (path, self._states[shard]) in _HASHED:
                continue
            self._check(shard)
            if sha256(Path(path)) != self._digests[shard]:
                raise IntegrityError(
                    f"{path}: the SHA-256 is not the recorded one: the file was damaged; copy the footprint again, or "
                    "measure it again"
                )
            _HASHED.add((path, self._states[shard]))

    @override
    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._read(name, lambda shard: shard.get_tensor(name))
        return tensor

    @override
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one tensor along its first dimension."""
        part: Tensor = self._read(name, lambda shard: shard.get_slice(name)[start:stop])
        return part

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape without reading it."""
        return tuple(self._read(name, lambda shard: shard.get_slice(name).get_shape(), contents=False))

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def _read(self, name: str, read: Callable[[Any], Any], *, contents: bool = True) -> Any:
        """Read from a shard, which stays open: to open it is to read the places of all its tensors."""
        shard = self._members[name]
        is_new = shard not in self._shards
        try:
            if is_new:
                self._shards[shard] = safe_open(self._paths[shard], framework="pt")
            found = read(self._shards[shard])
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: torch's own, of a file that is gone
            self._check(shard)
            raise IntegrityError(f"{self._paths[shard]} cannot be read: {error}") from None
        if is_new or contents:
            self._check(shard)
        return found

    def _check(self, shard: str) -> None:
        now = _state(self._paths[shard])
        if now is None:
            raise IntegrityError(f"{self._paths[shard]} cannot be read: it is gone")
        if now != self._states[shard]:
            raise IntegrityError(f"{self._paths[shard]} was replaced since this footprint was opened; load it again")


def _state(path: str | Path) -> _State | None:
    """Tell one file from another that takes its place; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - of a path that is not taken apart and joined each time
    except OSError:
        return None
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


class StoredMasks(Packed):
    """Masks on disk, kept as bits; each is read, checked and unpacked when it is asked for.

    Args:
        stored: The bytes of each mask.
        shapes: The shape of each mask.
    """

    def __init__(self, stored: StoredTensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.stored = stored
        self._shapes = dict(shapes)

    @override
    def packed(self, name: str, start: int, stop: int) -> Tensor:
        shape = self._shapes[name]
        expected = byte_count(shape)
        found = self.stored.shape(name)
        stop = min(stop, expected)
        part = self.stored.rows(name, start, stop) if found == (expected,) else None
        if part is None or part.dtype != torch.uint8:
            raise IntegrityError(
                f"the mask {name!r} of shape {list(shape)} takes {expected} bytes, and the shard holds a tensor of "
                f"shape {list(found)}: the footprint was changed or damaged"
            )
        beyond = math.prod(shape) % BITS_PER_BYTE
        if beyond and start < stop == expected and Bits(part[-1:], (BITS_PER_BYTE,)).unpack()[beyond:].any():
            raise IntegrityError(f"the mask {name!r} has bits beyond its last weight: the footprint was damaged")
        return part

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes
