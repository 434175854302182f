"""What is recorded about a model: hashes of its files, or of the tensors where there is no file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from torch import nn

SAFE_STEMS = ("model", "adapter_model")
VOLATILE = ("_name_or_path", "transformers_version")
"""Keys of a ``config.json`` that say where it came from and who wrote it, not what the model is."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def weight_files(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """List the weight files of a checkpoint folder.

    Args:
        folder: A folder in the Hugging Face layout.
        allow_pickle: Accept pickle files where there are no ``safetensors``.

    Returns:
        The files, at least one, sorted.

    Raises:
        UsageError: If there are none, or only pickles and those are not allowed, or an index is broken or lists an
            absent shard.
    """
    for stem in SAFE_STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            try:
                names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{index} is no index of weights ({error!r}); copy the checkpoint again") from error
            shards = sorted(folder / name for name in names)
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


def hash_json(path: Path, *, without: Collection[str] = ()) -> str:
    """Hash what a JSON file says, however it is laid out.

    Args:
        path: The file.
        without: Keys of the outermost mapping that do not count.

    Returns:
        SHA-256 in hexadecimal; of the bytes if the file is no JSON mapping.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in found.items() if key not in without}
    except (ValueError, AttributeError):
        return hash_files([path])[path.name]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def origin(where: str, revision: str | None, *, with_code: bool = False) -> dict[str, Any]:
    """Say where a checkpoint was read from, and hash its files.

    Args:
        where: Folder or id; an id must have been read already.
        revision: The revision asked for, if any.
        with_code: Whether code that comes with it was run, and belongs to what it is.

    Returns:
        ``source``, ``commit`` (of the Hub; None for a folder), and SHA-256: ``weights`` by file name, ``config`` of
        what decides the numbers, ``code`` by file name where it was run; None if the files cannot be found in the
        Hugging Face cache.
    """
    if Path(where).expanduser().is_dir():
        return {"source": "folder", "commit": None, **_contents(Path(where).expanduser(), with_code)}
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(where, "config.json", revision=revision or "main")
    if not isinstance(found, str):
        return {"source": "hub", "commit": None, "weights": None, "config": None}
    return {"source": "hub", "commit": Path(found).parent.name, **_contents(Path(found).parent, with_code)}


def _contents(folder: Path, with_code: bool) -> dict[str, Any]:
    # Whether a pickle may be read was decided before it was read.
    return {
        "weights": hash_files(weight_files(folder, allow_pickle=True)),
        "config": hash_json(folder / "config.json", without=VOLATILE),
    } | ({"code": hash_files(sorted(folder.glob("*.py")))} if with_code else {})


def first_line(error: BaseException) -> str:
    """Shorten an error of another library.

    Args:
        error: The error.

    Returns:
        The first line of what it says.
    """
    return (str(error).strip().splitlines() or ["no reason given"])[0]


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
