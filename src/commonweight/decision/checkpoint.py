"""A checkpoint folder: its configuration and its tensors, read one at a time; nothing of it is executed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from commonweight.decision.pickled import open_pickled
from commonweight.decision.tensors import Facts, Tensors
from commonweight.errors import IntegrityError, UsageError
from commonweight.nn.identity import first_line, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from commonweight.decision.source import Source

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What ``safetensors`` calls the types that can be fused or kept."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, looked at and not read."""

    source: Source
    config: Mapping[str, Any]
    """What ``config.json`` says."""

    tensors: Tensors
    files: Mapping[str, str]
    """File name by name of the tensor."""

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.source.folder


def open_checkpoint(source: Source, *, allow_pickle: bool = False) -> Checkpoint:
    """Look at a checkpoint: headers only.

    Args:
        source: Where it is.
        allow_pickle: Read pickled weights, restricted to plain tensors, where there are no ``safetensors``.

    Returns:
        The checkpoint.

    Raises:
        UsageError: If it is no checkpoint, has no weights or only pickled ones, or some that cannot be averaged.
        IntegrityError: If a file is damaged, or index and files disagree.
    """
    config = _config(source.folder)
    files = weight_files(source.folder, allow_pickle=allow_pickle)
    if files[0].suffix != ".safetensors":
        tensors, place = open_pickled(source.folder, source.name)
        return Checkpoint(source, config, tensors, place)
    place = {}
    facts: dict[str, Facts] = {}
    for file in files:
        for key, found in _header(file).items():
            if key in place:
                raise IntegrityError(f"{key} is in {place[key]} and in {file.name} of {source.folder}; copy it again")
            place[key], facts[key] = file.name, found
    _check_index(source.folder, files, place)
    if not facts:
        raise UsageError(f"{source.folder} has no tensors; give a trained checkpoint")
    paths = {file.name: file for file in files}
    return Checkpoint(source, config, Tensors(source.name, facts, lambda key: _read(paths[place[key]], key)), place)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} is a PEFT adapter; merge it into its base first, with merge_and_unload() and save_pretrained(), "
            "and fuse the merged checkpoints"
        )
    if not path.is_file():
        raise UsageError(f"{folder} is a folder but not a checkpoint: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read: {error}; copy the checkpoint again") from error
    if not isinstance(config, dict):
        raise IntegrityError(f"{path} is no mapping; copy the checkpoint again")
    return config


def _header(file: Path) -> dict[str, Facts]:
    facts = {}
    with _opened(file) as shard:
        for key in shard.keys():  # noqa: SIM118
            part = shard.get_slice(key)
            if part.get_dtype() not in DTYPES:
                raise UsageError(
                    f"{key} in {file} is stored as {part.get_dtype()}, which cannot be averaged; expected one of "
                    f"{', '.join(DTYPES)}: give the checkpoint as it was before it was quantised"
                )
            facts[key] = Facts(tuple(part.get_shape()), DTYPES[part.get_dtype()])
    return facts


def _check_index(folder: Path, files: Sequence[Path], place: Mapping[str, str]) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or not any("-of-" in file.name for file in files):
        return
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    wrong = sorted(key for key in {*listed, *place} if listed.get(key) != place.get(key))
    if wrong:
        raise IntegrityError(
            f"{index} places {wrong[0]} in {listed.get(wrong[0])}, and it is in {place.get(wrong[0])}; index and the "
            f"{len(files)} files disagree on {len(wrong)} tensors: copy the checkpoint again"
        )


def _read(file: Path, key: str) -> Tensor:
    with _opened(file) as shard:
        tensor: Tensor = shard.get_tensor(key)
    return tensor


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"{file} cannot be read ({first_line(error)}): it is damaged or incomplete; copy it again"
        ) from error
