"""Checkpoint folders: found, looked at without reading or running them, and planned to be fused."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from commonweight.base.errors import IntegrityError, NotComparableError, UsageError
from commonweight.base.names import nearby
from commonweight.base.records import json_file
from commonweight.fusion.compatible import check_configs, check_same, check_vocabularies
from commonweight.fusion.fishers import fishers_for, open_footprints
from commonweight.fusion.fusion import Fusion, is_worrying, notes_on, on_initialisation, plan_fusion
from commonweight.fusion.methods import make_method
from commonweight.fusion.tensors import FLOATS, WHOLE, Facts, Tensors
from commonweight.models.config import AGAIN, read_config
from commonweight.models.identity import first_line, hash_files, origin, weight_files
from commonweight.models.options import FUNCTION, HUB_ID
from commonweight.models.tokenizer import tokenizer_hashes
from commonweight.overlaps.alignment import alignment_of_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from commonweight.footprints.footprint import Footprint
    from commonweight.overlaps.alignment import Alignment

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

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py")
"""What is fetched of a repository on the Hub; folders within it are not."""


@dataclass(frozen=True)
class Source:
    """A checkpoint's place."""

    name: str
    """As the user gave it; what errors call it."""

    folder: Path
    id: str | None = None
    """On the Hub; None for a folder."""

    revision: str | None = None

    def identity(self) -> dict[str, Any]:
        """Say which checkpoint this is: where it came from, and the SHA-256 of its files."""
        where = self.id or str(self.folder)
        return {
            "name": self.name,
            **origin(where, self.revision),
            "tokenizer": tokenizer_hashes(where, self.revision),
        }


def find_sources(specs: Sequence[str | Path], *, allow_pickle: bool = False) -> list[Source]:
    """Find checkpoints; ids are fetched into the Hugging Face cache, all others must be folders."""
    places: dict[Path, str] = {}
    sources = []
    for spec in map(str, specs):
        source = _find(spec, allow_pickle)
        place = source.folder.resolve()
        if place in places:
            again = spec if places[place] == spec else f"{spec} (which is {places[place]})"
            raise UsageError(f"{again} is given twice; give each checkpoint once, a model with the sum of its weights")
        places[place] = spec
        sources.append(source)
    return sources


def _find(spec: str, allow_pickle: bool) -> Source:
    path = Path(spec).expanduser()
    if path.is_dir():
        return Source(spec, path)
    if path.exists():
        raise UsageError(f"{spec} is a file; expected a checkpoint folder with a config.json and its weights")
    if FUNCTION.fullmatch(spec):
        raise UsageError(
            f"{spec} is a function, and only checkpoints are fused into files; in Python, commonweight.fuse([model, "
            "model]) fuses modules"
        )
    found = HUB_ID.fullmatch(spec)
    close = nearby(spec)
    if found is None or close or spec.startswith((".", "/", "~")):
        guess = f"; did you mean {close!r}?" if close else "."
        raise UsageError(f"no folder {spec!r}{guess} Give checkpoint folders, or ids 'org/name@revision'")
    return Source(spec, _fetch(spec, found["id"], found["revision"], allow_pickle), found["id"], found["revision"])


def _fetch(spec: str, where: str, revision: str | None, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download

    from commonweight.models.hub import out_of_reach

    if (reason := out_of_reach(where, revision)) is not None:
        raise UsageError(
            f"{spec!r} is no folder, and as a Hugging Face id {reason}. Give a checkpoint folder, or an id 'org/name' "
            "that is in the cache or can be asked for"
        )
    wanted = [*WANTED, *(["*.bin"] if allow_pickle else [])]
    try:
        return Path(snapshot_download(where, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{spec!r} is no folder, and as a Hugging Face id it could not be fetched: {first_line(error)} Check the "
            "spelling, the revision and the network"
        ) from error


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
    """Look at a checkpoint: headers only."""
    config = _config(source.folder)
    files = weight_files(source.folder, allow_pickle=allow_pickle)
    if files[0].suffix != ".safetensors":
        return Checkpoint(source, config, *_pickled(source))
    place: dict[str, str] = {}
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
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} is a PEFT adapter; merge it into its base first, with merge_and_unload() and save_pretrained(), "
            "and fuse the merged checkpoints"
        )
    return read_config(folder)


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
    listed = json_file(index, AGAIN)["weight_map"]
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


PATTERN = "pytorch_model*.bin"
"""Weights; other pickles of a folder are those of an optimizer or a trainer."""


def _pickled(source: Source) -> tuple[Tensors, dict[str, str]]:
    """Map pickled weights, of tied ones the first; the user has allowed it, and only plain tensors are read."""
    held: dict[str, Tensor] = {}
    place: dict[str, str] = {}
    seen = set()
    for file in sorted(source.folder.glob(PATTERN)):
        try:
            state = dict(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
        except Exception as error:  # of whatever the file holds
            raise UsageError(f"{file} is damaged or holds no plain weights: {first_line(error)}") from error
        for key, tensor in state.items():
            if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS | WHOLE:
                raise UsageError(f"{key} in {file} is no plain tensor that could be averaged; convert the checkpoint")
            if key in held:
                raise IntegrityError(f"{key} is in {place[key]} and in {file.name} of {source.folder}; copy it again")
            memory = (file, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if not tensor.numel() or memory not in seen:
                held[key], place[key] = tensor, file.name
            seen.add(memory)
    if not held:
        raise UsageError(f"{source.folder} has no weights; expected model.safetensors, its index, or {PATTERN}")
    facts = {key: Facts(tuple(tensor.shape), tensor.dtype) for key, tensor in held.items()}
    return Tensors(source.name, facts, held.__getitem__), place


@dataclass(frozen=True)
class Plan:
    """A fusion of checkpoints that can go ahead."""

    fusion: Fusion
    checkpoints: tuple[Checkpoint, ...]
    base: Checkpoint | None
    alignment: Alignment
    """How far apart the checkpoints are, the base among them."""

    footprints: Mapping[str, Footprint]
    """Those of the checkpoints, in their order; none for most methods."""

    notes: tuple[str, ...]
    """What the user should hear beside what :meth:`told` says of the alignment, one sentence each."""

    def told(self) -> list[str]:
        """List all that the user should hear."""
        return [*([on_initialisation(self.alignment)] if is_worrying(self.alignment) else []), *self.notes]


def plan_checkpoints(
    folders: Sequence[str | Path],
    weights: Sequence[float] | None,
    method: str,
    *,
    base: str | Path | None,
    footprints: Sequence[Footprint | str | Path] | None,
    allow_pickle: bool,
    parameters: Mapping[str, float | str | None],
) -> Plan:
    """Find checkpoints, and check everything that does not take all their numbers."""
    made = make_method(method, has_base=base is not None, has_footprints=footprints is not None, **parameters)
    if not folders:
        raise UsageError("expected at least one model to fuse, got none; give checkpoint folders")
    shares = made.checked_weights(weights, len(folders))
    # Configurations, tokenizers, names, shapes and types are compared, and a sample of every weight matrix tells
    # whether there is a shared initialisation and whose Fisher each footprint is.
    sources = find_sources([*folders, *([base] if base is not None else [])], allow_pickle=allow_pickle)
    every = [open_checkpoint(source, allow_pickle=allow_pickle) for source in sources]
    opened = {} if footprints is None else open_footprints(footprints)
    notes = check_configs({checkpoint.source.name: checkpoint.config for checkpoint in every})
    notes += check_vocabularies({checkpoint.source.name: checkpoint.folder for checkpoint in every})
    _check_code(every)
    tensors = [checkpoint.tensors for checkpoint in every]
    check_same(tensors)
    samples = {one.name: one.sample() for one in tensors}
    models, base_tensors = tensors[: len(folders)], tensors[-1] if base is not None else None
    fishers = None
    if made.needs_fishers:
        fishers = fishers_for(models, samples, opened, made.normalization, every[0].folder)
    fusion = plan_fusion(made, shares, models, base_tensors, fishers)
    alignment = alignment_of_samples(samples)
    base_checkpoint = every[-1] if base is not None else None
    checkpoints = tuple(every[: len(folders)])
    return Plan(fusion, checkpoints, base_checkpoint, alignment, opened, (*notes, *notes_on(fusion)))


def _check_code(checkpoints: Sequence[Checkpoint]) -> None:
    # The code of a checkpoint is copied, never run; copies must not mix two programs.
    code = {c.source.name: hash_files(sorted(c.folder.glob("*.py"))) for c in checkpoints if c.config.get("auto_map")}
    first = next(iter(code), None)
    for name, found in code.items():
        if first is not None and found != code[first]:
            raise NotComparableError(
                f"{first!r} and {name!r} come with different model code of their own; fuse models of one program"
            )
