"""What is recorded about weights: hashes of the files, or of the tensors where there is no file."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn

SAFE_STEMS = ("model", "adapter_model")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def weight_files(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """List the weight files of a checkpoint folder.

    Args:
        folder: A folder in the Hugging Face layout.
        allow_pickle: Accept pickle files where there are no ``safetensors``.

    Returns:
        The files, at least one, sorted.

    Raises:
        UsageError: If there are none, or only pickles and those are not allowed, or an index lists an absent shard.
    """
    for stem in SAFE_STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            shards = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
            for shard in shards:
                if not shard.is_file():
                    raise UsageError(f"{folder} is incomplete: its index lists {shard.name}, which is not there")
            return shards
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if not pickles:
        raise UsageError(f"{folder} has no weights; expected model.safetensors or its index there")
    if not allow_pickle:
        raise UsageError(
            f"{folder} has its weights only as pickle ({pickles[0].name}), and reading a pickle can run code. Convert "
            "it with save_pretrained(..., safe_serialization=True), or pass --allow-pickle if you trust the file"
        )
    return pickles


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """Hash files.

    Args:
        paths: The files.

    Returns:
        SHA-256 in hexadecimal by file name.
    """
    found = {}
    for path in paths:
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def hash_state(model: nn.Module) -> str:
    """Hash the parameters and buffers of a module: names, shapes, types and values.

    Args:
        model: The module.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = hash_state(layer)
        >>> _ = torch.nn.init.zeros_(layer.bias)
        >>> before == hash_state(layer)
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(model: nn.Module) -> dict[str, Any]:
    """Record what every model has.

    Args:
        model: The module.

    Returns:
        Class, number of parameters, and their precision.
    """
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
    }
