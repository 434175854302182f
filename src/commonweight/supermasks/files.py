"""Writes a supermask network to a folder and reads it back.

The folder holds ``supermasks.json`` (format, version, options, tasks, hashes) and ``supermasks.safetensors``: the
frozen weights once (signed constants as one bit per weight and a scale), and per task one bit per weight, its
statistics, and its scores unless they were dropped. Reading executes nothing, and checks the hashes of the file and of
the weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import Kind, checked_output, flush, replacing
from commonweight.base.records import Format, folder_record, sealed
from commonweight.models.identity import hash_files
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.conversion import Options
from commonweight.supermasks.influence import Influence
from commonweight.supermasks.rules import rule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor, nn

    from commonweight.supermasks.conversion import Parts

FORMAT = "commonweight-supermasks"
VERSION = 2
RECORD = "supermasks.json"
TENSORS = "supermasks.safetensors"
KIND = Kind("supermask network", RECORD)
NETWORK = Format(FORMAT, (VERSION,), "a supermask network", "train and save the network again")
_KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TYPES = {str(kind).removeprefix("torch."): kind for kind in _KINDS}
_Scale = tuple[list[int], float, str]  # a signed constant's shape, size and type
_FITS: dict[str, Callable[[Any], bool]] = {
    "options": lambda options: _are_options(options),
    "frozen_before": lambda names: isinstance(names, list) and all(isinstance(each, str) for each in names),
    "scales": lambda scales: isinstance(scales, dict) and all(map(_is_scale, scales.values())),
}
_STATE = ("options", "tasks", "frozen_before", "scales", "digest", "bytes", "sha256")


def write(folder: str | Path, parts: Parts, state: dict[str, Any], *, overwrite: bool) -> None:
    """Write a network."""
    tensors, scales = _frozen(parts)
    for index, task in enumerate(state["tasks"]):
        tensors |= _of_task(parts, index, finished=task["finished"])
    place = checked_output(Path(folder), KIND, overwrite=overwrite)
    with replacing(place, KIND, overwrite=overwrite) as beside:
        beside.mkdir(parents=True)
        path = beside / TENSORS
        try:
            save_file({key: _plain(tensor) for key, tensor in tensors.items()}, path)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
        record = {
            "format": FORMAT,
            "version": VERSION,
            **state,
            "frozen_before": parts.frozen_before,
            "scales": scales,
            "digest": parts.digest(),
            "bytes": path.stat().st_size,
            "sha256": hash_files([path])[TENSORS],
        }
        (beside / RECORD).write_text(json.dumps(sealed(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for name in (TENSORS, RECORD):
            flush(beside / name)


def read_record(folder: str | Path) -> dict[str, Any]:
    """Read and check the record of a network."""
    path = Path(folder) / RECORD
    record = folder_record(path.parent, RECORD, NETWORK, _STATE)
    wrong = [key for key, fits in _FITS.items() if not fits(record[key])]
    if wrong:
        raise IntegrityError(f"{path} has {', '.join(wrong)} of another form: it was damaged or written by hand")
    return record


def read_tensors(folder: str | Path, record: dict[str, Any]) -> dict[str, Tensor]:
    """Read and check the tensors of a network."""
    path = Path(folder) / TENSORS
    if not path.is_file():
        raise IntegrityError(f"{folder} has no {TENSORS}: the network is incomplete; save it again")
    if path.stat().st_size != record["bytes"] or hash_files([path])[TENSORS] != record["sha256"]:
        raise IntegrityError(f"{path} is not the file that was written (size or SHA-256 differs): save it again")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}): save the network again") from error
    return tensors


def fill(parts: Parts, record: dict[str, Any], tensors: dict[str, Tensor], folder: str | Path) -> None:
    """Put saved tensors into a network that has the saved tasks."""
    targets: dict[str, Tensor] = {}
    for name, target in parts.everything().items():
        signs = tensors.pop(f"signs/{name}", None)
        if signs is not None and name in record["scales"]:
            shape, scale, kind = record["scales"][name]
            if signs.dtype != torch.uint8 or signs.numel() != -(-math.prod(shape) // 8):
                raise IntegrityError(
                    f"{folder} has {signs.numel()} bytes of signs of {name}, its record the shape {shape}"
                )
            tensors[f"frozen/{name}"] = _signed(signs, shape, scale, kind)
        targets[f"frozen/{name}"] = target
    for index, task in enumerate(record["tasks"]):
        targets |= _of_task(parts, index, finished=task["finished"])
    odd = sorted(targets.keys() ^ tensors.keys())
    if odd:
        raise UsageError(
            f"the model is not the one saved in {folder}: they do not share {odd[:5]} ({len(odd)} in all); pass a "
            "model of the same architecture"
        )
    for key, target in targets.items():
        saved = tensors[key]
        if saved.shape != target.shape:
            raise UsageError(
                f"the model is not the one saved in {folder}: {key} has shape {list(target.shape)}, the saved one "
                f"{list(saved.shape)}; pass a model of the same architecture"
            )
        target.data = torch.empty_like(target, dtype=saved.dtype, requires_grad=False).copy_(saved)
    if parts.digest() != record["digest"]:
        raise IntegrityError(f"the weights in {folder} are not those that were saved (SHA-256 differs): it was damaged")


def unfrozen(model: nn.Module, record: dict[str, Any]) -> nn.Module:
    """Give a model the trainable and frozen parameters it had when it was converted."""
    frozen = set(record["frozen_before"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def _frozen(parts: Parts) -> tuple[dict[str, Tensor], dict[str, _Scale]]:
    tensors: dict[str, Tensor] = {}
    scales: dict[str, _Scale] = {}
    for name, tensor in parts.everything().items():
        here = _plain(tensor)
        if name in parts.masks and here.dtype in _KINDS:
            scale = (list(here.shape), float(here.reshape(-1)[:1].abs().sum()), str(here.dtype).removeprefix("torch."))
            signs = Bits.of(here > 0).packed
            if scale[1] > 0 and torch.equal(_signed(signs, *scale), here):  # zeros have signs of their own
                tensors[f"signs/{name}"], scales[name] = signs, scale
                continue
        tensors[f"frozen/{name}"] = here
    return tensors, scales


def _signed(signs: Tensor, shape: list[int], scale: float, kind: str) -> Tensor:
    size = torch.full((), scale, dtype=_TYPES[kind])
    return torch.where(Bits(signs, tuple(shape)).unpack(), size, -size)


def _of_task(parts: Parts, index: int, *, finished: bool) -> dict[str, Tensor]:
    """The tensors of a task, under the names they have in the file."""
    tensors: dict[str, Tensor] = {}
    for name, mask in parts.masks.items():
        scores = mask.scores(index)
        if scores is not None:
            tensors[f"task{index}/scores/{name}"] = scores
        if finished:
            tensors[f"task{index}/bits/{name}"] = mask.bits(index).packed
    for name, norm in parts.norms.items():
        for own, tensor in norm.tensors(index).items():
            tensors[f"task{index}/norms/{name}/{own}"] = tensor
    return tensors


def _are_options(value: Any) -> bool:
    try:
        Options(**value | {"rule": rule_of(value["rule"])})
    except (KeyError, TypeError, UsageError):
        return False
    return True


def _is_scale(value: Any) -> bool:
    match value:
        case [list(shape), float(), str(kind)]:
            return kind in _TYPES and all(isinstance(side, int) and side >= 0 for side in shape)
    return False


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors refuses tensors that share memory


@dataclass(frozen=True)
class SavedTask:
    """One task of a saved network."""

    name: str
    finished: bool
    scores: bool
    """Whether its scores were kept."""

    moved_towards: frozenset[int]
    """Prior tasks that its scores were moved towards."""

    influences: Mapping[str, Influence]
    """Masked weight -> the influence that is on."""

    @property
    def point(self) -> tuple[str, bool, bool]:
        """What two networks must share for the tensors of one to fit the other."""
        return self.name, self.finished, self.scores


def read_tasks(state: Mapping[str, Any], masked: Collection[str]) -> list[SavedTask]:
    """Read the tasks of a saved network."""
    try:
        tasks = [_task(entry, index, masked) for index, entry in enumerate(state["tasks"])]
        _expect(len({task.name for task in tasks}) == len(tasks), "two tasks of one name")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"the tasks of a saved network are damaged ({error!r}): save it again") from None
    return tasks


def _task(entry: Mapping[str, Any], index: int, masked: Collection[str]) -> SavedTask:
    name = entry["name"]
    _expect(isinstance(name, str) and name != "", f"a task called {name!r}")
    _expect(isinstance(entry["finished"], bool) and isinstance(entry["scores"], bool), f"the state of {name!r}")
    moved = frozenset(_saved_prior(prior, index) for prior in entry["moved_towards"])
    influences = {weight: _influence(each, index) for weight, each in entry["influences"].items()}
    _expect(influences.keys() <= set(masked), f"an influence on {sorted(influences.keys() - set(masked))}")
    return SavedTask(name, entry["finished"], entry["scores"], moved, influences)


def _influence(entry: Mapping[str, Any], index: int) -> Influence:
    alphas = {_saved_prior(prior, index): float(alpha) for prior, alpha in entry["alphas"]}
    beta = float(entry["beta"])
    _expect(bool(alphas) and all(0 < alpha < math.inf for alpha in alphas.values()), f"alphas {alphas}")
    _expect(0 < beta < 1, f"beta {beta}")
    return Influence(alphas, beta)


def _saved_prior(prior: Any, index: int) -> int:
    _expect(isinstance(prior, int) and not isinstance(prior, bool) and 0 <= prior < index, f"prior task {prior!r}")
    return int(prior)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
