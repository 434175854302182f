"""Reads a footprint folder: JSON and safetensors only, so nothing is executed; one tensor or one slice at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from commonweight.base.errors import IntegrityError
from commonweight.footprints.files import RECORD, read_record, sha256
from commonweight.footprints.packed import BITS_PER_BYTE, byte_count, unpacked_rows
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from torch import Tensor

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
        stored = StoredTensors(self.folder, members, self._states)
        shapes = self.record.get("packed", {}).get(name)
        return stored if shapes is None else StoredMasks(stored, {key: tuple(shape) for key, shape in shapes.items()})


class StoredTensors(Mapping[str, "Tensor"]):
    """Tensors on disk, each read when it is asked for, from the files that were opened and no others."""

    def __init__(self, folder: Path, members: Mapping[str, str], states: Mapping[str, _State | None]) -> None:
        self._folder = folder
        self._members = dict(members)
        self._states = states

    def __getitem__(self, name: str) -> Tensor:
        with self._open(name) as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one tensor along its first dimension."""
        with self._open(name) as shard:
            part: Tensor = shard.get_slice(name)[start:stop]
        return part

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape without reading it."""
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
        problem = None
        try:
            with safe_open(path, framework="pt") as shard:
                yield shard
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: torch's own, of a file that is gone
            problem = error
        now = _state(path)
        if problem is not None and now in {None, self._states[self._members[name]]}:
            raise IntegrityError(f"{path} cannot be read: {problem}")
        if now != self._states[self._members[name]]:
            raise IntegrityError(f"{path} was replaced since this footprint was opened; load it again")


def _state(path: Path) -> _State | None:
    """Tell one file from another that takes its place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


class StoredMasks(Mapping[str, "Tensor"]):
    """Masks on disk, kept as bits; each is read, checked and unpacked when it is asked for.

    Args:
        stored: The bytes of each mask.
        shapes: The shape of each mask.
    """

    def __init__(self, stored: StoredTensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._stored = stored
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        return Bits(self.packed(name, 0, byte_count(shape)), shape).unpack()

    def packed(self, name: str, start: int, stop: int) -> Tensor:
        """Read some bytes of one mask."""
        shape = self._shapes[name]
        expected = byte_count(shape)
        found = self._stored.shape(name)
        stop = min(stop, expected)
        part = self._stored.rows(name, start, stop) if found == (expected,) else None
        if part is None or part.dtype != torch.uint8:
            raise IntegrityError(
                f"the mask {name!r} of shape {list(shape)} takes {expected} bytes, and the shard holds a tensor of "
                f"shape {list(found)}: the footprint was changed or damaged"
            )
        beyond = math.prod(shape) % BITS_PER_BYTE
        if beyond and start < stop == expected and Bits(part[-1:], (BITS_PER_BYTE,)).unpack()[beyond:].any():
            raise IntegrityError(f"the mask {name!r} has bits beyond its last weight: the footprint was damaged")
        return part

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read a slice of one mask along its first dimension."""
        return unpacked_rows(self, name, start, stop)

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a mask's shape without reading it."""
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes
