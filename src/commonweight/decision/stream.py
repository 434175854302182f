"""Writes ``safetensors`` files as tensors come, so that no more than one is in memory.

Format: eight bytes with the header's length, the header as JSON (name, type, shape, place of each tensor), the tensors'
bytes without gaps. Source: https://github.com/huggingface/safetensors#format. Shapes and types are known before the
first tensor is computed, so the header can be written first; the library's own writer wants all tensors at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import IO, TYPE_CHECKING, Any

import torch

from commonweight.decision.checkpoint import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from commonweight.decision.tensors import Facts

ALIGNMENT = 8
"""Tensors begin at a multiple of this."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_stream(path: Path, facts: Mapping[str, Facts], tensor: Callable[[str], Tensor]) -> dict[str, Any]:
    """Write one file and flush it to disk.

    Args:
        path: The file; must not exist.
        facts: Shape and type of every tensor, by name.
        tensor: Computes one tensor, of that shape and type.

    Returns:
        ``bytes`` and ``sha256`` of the file.

    Raises:
        ValueError: If a tensor does not have the shape or type that was announced.

    Example:
        >>> import tempfile, pathlib
        >>> from safetensors.torch import load_file
        >>> from commonweight.decision.tensors import Facts
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "x.safetensors"
        >>> found = write_stream(file, {"w": Facts((2,), torch.float32)}, lambda key: torch.ones(2))
        >>> load_file(file), found["bytes"] == file.stat().st_size
        ({'w': tensor([1., 1.])}, True)
    """
    # The library's order: wide types first, so that every tensor is aligned to its own width.
    order = sorted(facts, key=lambda key: (-facts[key].dtype.itemsize, key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        start, end = end, end + size_of(facts[key])
        shape = list(facts[key].shape)
        header[key] = {"dtype": _NAMES[facts[key].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for key in order:
            _append(file, digest, key, facts[key], tensor(key))
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _append(file: IO[bytes], digest: Any, key: str, facts: Facts, tensor: Tensor) -> None:
    if (tuple(tensor.shape), tensor.dtype) != (facts.shape, facts.dtype):
        raise ValueError(f"{key} was announced as {facts} and is {tuple(tensor.shape)}, {tensor.dtype}")
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    file.write(values)
    digest.update(values)


def size_of(facts: Facts) -> int:
    """Count the bytes of a tensor.

    Args:
        facts: Its shape and type.

    Returns:
        The number.
    """
    entries = 1
    for length in facts.shape:
        entries *= length
    return entries * facts.dtype.itemsize
