"""The folder of a fused checkpoint: written whole under another name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from commonweight.base.errors import UsageError
from commonweight.base.folders import Kind, check_room, checked_output, flush, replacing
from commonweight.fusion.card import RECORD, dead_share, describe, model_card
from commonweight.fusion.checkpoints import DTYPES
from commonweight.models.tokenizer import BESIDE, TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from commonweight.fusion.plan import Plan
    from commonweight.fusion.tensors import Facts


FUSED = Kind("fused checkpoint", RECORD)


CONFIGURATION = ("config.json", "generation_config.json")


COPIED = (*TOKENIZER_FILES, *BESIDE, "chat_template.jinja", "preprocessor_config.json", "processor_config.json")
"""Files of the first model that are taken over as they are, where it has them."""


def check_place(output: str | Path, inputs: Iterable[str | Path], *, overwrite: bool = False) -> Path:
    """Check that a fused checkpoint may be written somewhere, before any other work."""
    folder = Path(output).expanduser()
    for given in inputs:
        path = Path(given).expanduser()
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle: said below, or where the input is opened
            if path.exists() and path.resolve().is_relative_to(folder.resolve()):
                relation = "is" if path.resolve() == folder.resolve() else "holds"
                raise UsageError(f"the output {output} {relation} the input {given}; choose another folder")
    return checked_output(folder, FUSED, overwrite=overwrite)


def write_fusion(
    plan: Plan, folder: Path, command: str, *, overwrite: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Compute a fusion and write it, one tensor at a time, in files like those of the first model."""
    facts = plan.fusion.models[0].facts
    check_room(folder, sum(map(size_of, facts.values())))
    with (
        replacing(folder, FUSED, overwrite=overwrite) as place,
        tqdm(total=len(facts), unit=" tensors", desc="fusing", disable=not progress) as bar,
    ):
        place.mkdir(parents=True)
        _copy_beside(plan, place)
        files: dict[str, Any] = {}
        weight_map: dict[str, str] = {}

        def tensor(key: str) -> Any:
            bar.update()
            return plan.fusion.tensor(key)

        for name, members in _files(plan).items():
            files[name] = write_stream(place / name, members, tensor)
            weight_map.update(dict.fromkeys(members, name))
        if len(files) > 1:
            total = {"total_size": sum(map(size_of, facts.values()))}
            index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
            _write(place / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
        record = {**describe(plan, command), "dead": dead_share(plan), "files": files}
        _write(place / "README.md", model_card(record, folder.name))
        _write(place / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
        flush(place)
    return record


def _files(plan: Plan) -> dict[str, Mapping[str, Facts]]:
    """Deal the tensors to files as the first model has them, under the names the library looks for."""
    first = plan.checkpoints[0]
    originals = sorted(set(first.files.values()))
    found: dict[str, Mapping[str, Facts]] = {}
    for number, original in enumerate(originals, 1):
        name = "model.safetensors"
        if len(originals) > 1:
            name = f"model-{number:05d}-of-{len(originals):05d}.safetensors"
        found[name] = {key: fact for key, fact in first.tensors.facts.items() if first.files[key] == original}
    return found


def _copy_beside(plan: Plan, place: Path) -> None:
    first = plan.checkpoints[0]
    # Whoever has a tokenizer has the same one: that was checked.
    holders = [c.folder for c in plan.checkpoints if any((c.folder / name).is_file() for name in TOKENIZER_FILES)]
    for name in CONFIGURATION:
        if (first.folder / name).is_file():
            shutil.copyfile(first.folder / name, place / name)
    for name in COPIED:
        source = (holders[0] if holders and name in (*TOKENIZER_FILES, *BESIDE) else first.folder) / name
        if source.is_file():
            shutil.copyfile(source, place / name)
    if first.config.get("auto_map"):
        for code in first.folder.glob("*.py"):
            shutil.copyfile(code, place / code.name)
    for path in place.iterdir():
        flush(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    flush(path)


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
        >>> from commonweight.fusion.tensors import Facts
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
    """Count the bytes of a tensor."""
    entries = 1
    for length in facts.shape:
        entries *= length
    return entries * facts.dtype.itemsize
