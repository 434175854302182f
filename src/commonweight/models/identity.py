"""What is recorded about a model: hashes of its files, or of the tensors where there is no file."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from torch import nn

MODEL, ADAPTER = "model", "adapter_model"
"""How the weights of a checkpoint are called, and those of an adapter."""

VOLATILE = ("_name_or_path", "transformers_version")
"""Keys of a ``config.json`` that say where it came from and who wrote it, not what the model is."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def weight_files(folder: Path, *, stem: str = MODEL, allow_pickle: bool = False) -> list[Path]:
    """List the weight files of a folder that are read: what the configuration names, else one file, else an index."""
    named = _weights_named(folder) if stem == MODEL else None
    found: list[Path] = []
    for name in [named] if named else [f"{stem}.safetensors.index.json", f"{stem}.safetensors"]:
        if (folder / name).is_file():
            found = _shards(folder, name) if name.endswith(".index.json") else [folder / name]
    if found:
        return found
    if stem == ADAPTER:
        pickles = [path for path in [folder / f"{stem}.bin"] if path.is_file()]
    else:
        pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if not pickles:
        raise UsageError(f"{folder} has no weights; expected {named or f'{stem}.safetensors'} there")
    if not allow_pickle:
        raise UsageError(
            f"{folder} has its weights only as pickle ({pickles[0].name}), and reading a pickle can run code. Convert "
            "it with save_pretrained(..., safe_serialization=True), or pass {allow_pickle} if you trust the file",
            allow_pickle=True,
        )
    return pickles


def _weights_named(folder: Path) -> str | None:
    """Read which file of weights the configuration names, if it does."""
    try:
        named = json_file(folder / "config.json", "").get("transformers_weights")
    except (IntegrityError, AttributeError):  # said where the configuration is read
        return None
    return None if named is None else _inside(folder, "config.json", str(named))


def _shards(folder: Path, index: str) -> list[Path]:
    try:
        listed = json_file(folder / index, "copy the checkpoint again")["weight_map"].values()
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{folder / index} is no index of weights ({error!r}); copy the checkpoint again"
        ) from error
    shards = [folder / name for name in sorted({_inside(folder, index, str(name)) for name in listed})]
    for shard in shards:
        if not shard.is_file():
            raise UsageError(f"{folder} is incomplete: its index lists {shard.name}, which is not there")
    return shards


def _inside(folder: Path, record: str, name: str) -> str:
    if Path(name).name != name:
        raise UsageError(
            f"{folder / record} names the weights {name!r}, expected a file of that folder; nothing is read"
        )
    return name


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """Hash files."""
    found = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read ({error}): copy its folder again, whole") from error
    return found


def hash_json(path: Path, *, without: Collection[str] = ()) -> str:
    """Hash what a JSON file says, however it is laid out."""
    try:
        found = json_file(path, "")
        kept = {key: value for key, value in found.items() if key not in without}
    except (IntegrityError, AttributeError):
        return hash_files([path])[path.name]
    return digest_of(kept)


def origin(where: str, revision: str | None) -> dict[str, Any]:
    """Say where a checkpoint was read from, and hash its files."""
    if Path(where).expanduser().is_dir():
        return {"source": "folder", "commit": None, **_contents(Path(where).expanduser())}
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(where, "config.json", revision=revision or "main")
    if not isinstance(found, str):
        raise UsageError(
            f"{where} was read, and its files are not in {constants.HF_HUB_CACHE}, so which weights these are cannot "
            "be recorded; unset TRANSFORMERS_CACHE, or give a folder"
        )
    return {"source": "hub", "commit": Path(found).parent.name, **_contents(Path(found).parent)}


def _contents(folder: Path) -> dict[str, Any]:
    # Whether a pickle may be read was decided before it was read.
    return {
        "weights": hash_files(weight_files(folder, allow_pickle=True)),
        "config": hash_json(folder / "config.json", without=VOLATILE),
    }


def code_hashes(*loaded: Any) -> dict[str, str]:
    """Hash the code that came with a checkpoint and was run, wherever it lay."""
    kinds = {
        kind for one in loaded for kind in type(one).__mro__ if kind.__module__.startswith("transformers_modules.")
    }
    if not kinds:
        return {}
    from transformers.dynamic_module_utils import get_relative_import_files

    files = {str(inspect.getsourcefile(kind)) for kind in kinds}
    files |= {str(more) for file in files for more in get_relative_import_files(file)}
    return hash_files(map(Path, sorted(files)))


def digest_of(identity: Any) -> str:
    """Hash plain JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def first_line(error: BaseException) -> str:
    """Shorten an error of another library."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def hash_state(model: nn.Module) -> str:
    """Hash the parameters and buffers of a module: names, shapes, types and values."""
    return _hash_values({key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)})


def hash_settings(model: nn.Module) -> str:
    """Hash what a module computes with and no file of weights holds: numbers, words and further tensors."""
    held = {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training"
    }
    state = model.state_dict()
    buffers = {key: value for key, value in model.named_buffers() if key not in state}
    return _hash_values(held | buffers | {key: state[key] for key in state if not isinstance(state[key], torch.Tensor)})


def _hash_values(values: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {list(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif _is_plain(value):
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


def describe(model: nn.Module) -> dict[str, Any]:
    """Record what every model has."""
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
    }
