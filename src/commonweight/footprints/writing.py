"""Writes a footprint folder: under a temporary name beside its place, flushed to disk and renamed.

So it is there whole or not at all. Shards are flushed and hashed in the background, while the next ones are measured
and written.
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from safetensors import SafetensorError
from safetensors.torch import save_file

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.folders import flush
from commonweight.footprints.files import FORMAT, PACKED_VERSION, RECORD, VERSION, as_json, sha256
from commonweight.footprints.packed import Packed, byte_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from torch import Tensor

SHARD_BYTES = 2**31
SMALLEST_SHARD_BYTES = 2**25


class FolderWriter:
    """Writes a footprint folder, group by group; nothing shows under its name before :meth:`commit`."""

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite
        self._check_free()
        self._partial = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}.partial")
        self._groups: dict[str, dict[str, str]] = {}
        self._packed: dict[str, dict[str, list[int]]] = {}
        self._shards: dict[str, Future[dict[str, Any]]] = {}
        self._background = ThreadPoolExecutor(max_workers=1)

    def _check_free(self) -> None:
        there = (self.folder / RECORD).is_file()
        if self.folder.exists() and not (self._overwrite and there):
            remedy = "pass {overwrite} to replace it" if there else "choose another folder"
            raise UsageError(f"{self.folder} exists already: {remedy}", overwrite=True)

    def __enter__(self) -> Self:
        self._partial.mkdir(parents=True)
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
            "version": PACKED_VERSION if self._packed else VERSION,
            **record,
            **({"packed": self._packed} if self._packed else {}),
            "groups": self._groups,
            "shards": {name: shard.result() for name, shard in self._shards.items()},
        }
        path = self._partial / RECORD
        path.write_text(as_json(whole) + "\n", encoding="utf-8")
        flush(path)
        flush(self._partial)
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
        flush(self.folder.parent)
        shutil.rmtree(previous, ignore_errors=True)

    def _write(self, group: str, tensors: Mapping[str, Tensor], members: dict[str, str]) -> None:
        shard = f"{group}-{sum(name.startswith(group + '-') for name in self._shards):05d}.safetensors"
        path = self._partial / shard
        try:
            save_file(_apart(tensors), path)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
        path.chmod(0o666 & ~_umask())
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
