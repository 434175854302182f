"""The Fishers of a fusion: one footprint per model, of exactly its weights, brought to one scale.

Fishers name parameters as the class of a model does; a checkpoint may store them under other names and in other shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.base.names import by_value, differ, first_of, quoted
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.slices import shape_of
from commonweight.fusion.tensors import Tensors
from commonweight.models.checkpoint import load_config, model_class_of, quiet_transformers
from commonweight.models.placement import DTYPES, seeded
from commonweight.overlaps.table.layout import beware_of_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from commonweight.footprints.weight_sample import Sample
    from commonweight.fusion.tensors import Facts

RECENT = 2
"""Parameters of each Fisher kept in memory where several stored tensors are parts of one: experts come in turns."""

_RULES = {"fisher_type": "Fisher type", "loss": "loss"}


class Piece(NamedTuple):
    """Entries that a parameter and a stored tensor have in common."""

    parameter: str
    stored: str
    there: Tensor | slice
    """Their places in the parameter, flat."""

    here: Tensor | slice
    """Their places in the stored tensor, flat, in the same order."""


@dataclass(frozen=True)
class Layout:
    """Which entries of which stored tensors a class reads as its parameters."""

    of_parameter: Mapping[str, Sequence[Piece]]
    of_stored: Mapping[str, Sequence[Piece]]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters."""

    def as_parameters(self, model: Tensors) -> Tensors:
        """Look at a checkpoint as its class does."""
        facts = {
            name: replace(model.facts[pieces[0].stored], shape=self.shapes[name])
            for name, pieces in self.of_parameter.items()
        }

        def read(name: str) -> Tensor:
            whole = torch.empty(math.prod(self.shapes[name]), dtype=facts[name].dtype)
            for piece in self.of_parameter[name]:
                whole[piece.there] = model.read(piece.stored).reshape(-1)[piece.here]
            return whole.reshape(self.shapes[name])

        return Tensors(model.name, facts, read)


@dataclass(frozen=True)
class Fishers:
    """One Fisher per model, divided by its unit."""

    names: tuple[str, ...]
    footprints: tuple[Footprint, ...]
    units: tuple[float, ...]
    """What the entries of each are divided by."""

    layout: Layout | None = None
    """Where the models' tensors are stored under other names or in other shapes than the Fishers'."""

    _recent: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def __contains__(self, key: object) -> bool:
        if self.layout is None:
            return key in self.footprints[0]
        return any(piece.parameter in self.footprints[0] for piece in self.layout.of_stored.get(str(key), ()))

    def of(self, key: str, facts: Facts) -> Iterator[Tensor]:
        """Read what belongs to one tensor of the models from every Fisher."""
        for position, unit in enumerate(self.units):
            if self.layout is None:
                found = self._values(position, key)
            else:
                found = torch.zeros(math.prod(facts.shape), dtype=torch.float64)
                for piece in self.layout.of_stored[key]:
                    if piece.parameter in self.footprints[position]:
                        values = self._values(position, piece.parameter).reshape(-1)
                        found[piece.here] = values[piece.there].to(found.device)
                found = found.reshape(facts.shape)
            yield found.to(facts.device).div(unit)

    def beware(self) -> list[str]:
        """Say what is wrong with a Fisher that can be used all the same."""
        held = dict(zip(self.names, self.footprints, strict=True))
        few = beware_of_few({name: footprint.effective_sample_size for name, footprint in held.items()})
        return few + beware_of_labels(held)

    def _values(self, position: int, name: str) -> Tensor:
        if self.layout is None:
            return _read(self.footprints[position], self.names[position], name)
        if (position, name) not in self._recent:
            while len(self._recent) >= RECENT * len(self.units):
                del self._recent[next(iter(self._recent))]
            self._recent[position, name] = _read(self.footprints[position], self.names[position], name)
        return self._recent[position, name]


def open_footprints(given: Sequence[Footprint | str | Path]) -> dict[str, Footprint]:
    """Open footprints."""
    if isinstance(given, str | Path | Footprint):
        raise UsageError("expected a list of footprints, one per model, got a single one; put it into a list")
    found = {}
    for number, one in enumerate(given, 1):
        if isinstance(one, Footprint):
            found[f"footprint {number}"] = one
        elif isinstance(one, str | Path):
            name = str(one) if str(one) not in found else f"{one} (number {number})"
            found[name] = Footprint.load(Path(one).expanduser(), check_hashes=True)
        else:
            raise UsageError(f"footprint {number} must be a Footprint or a folder, got {type(one).__name__}")
    return found


def fishers_for(
    models: Sequence[Tensors],
    samples: Mapping[str, Sample],
    footprints: dict[str, Footprint],
    normalize: str,
    folder: Path | None = None,
) -> Fishers:
    """Check that footprints fit the models, and find their units."""
    # With the folder of the first checkpoint, its class is asked for the names of parameters where those in the files
    # do not serve.
    try:
        return _fishers(models, samples, footprints, normalize)
    except NotComparableError:
        layout = None if folder is None else layout_of(models[0], folder)
        if layout is None:
            raise
    parameters = [layout.as_parameters(model) for model in models]
    found = _fishers(parameters, {model.name: model.sample() for model in parameters}, footprints, normalize)
    return replace(found, layout=layout)


def _fishers(
    models: Sequence[Tensors], samples: Mapping[str, Sample], footprints: dict[str, Footprint], normalize: str
) -> Fishers:
    if len(footprints) != len(models):
        raise UsageError(
            f"expected one footprint per model, got {len(footprints)} for {len(models)}; give them in the order of "
            "the models"
        )
    _check_alike(footprints)
    _check_cover(models, footprints)
    _check_whose(models, samples, footprints)
    units = []
    for name, footprint in footprints.items():
        unit = _unit(footprint, name, normalize)
        if unit == 0:
            raise MeasurementError(
                f"the Fisher of {name!r} is zero everywhere: its model is certain of every example, so nothing says "
                "which weights matter. Measure it on other data, or with {fisher_type}",
                fisher_type="exact",
            )
        units.append(unit)
    return Fishers(tuple(footprints), tuple(footprints.values()), tuple(units))


def _check_alike(footprints: dict[str, Footprint]) -> None:
    for name, footprint in footprints.items():
        if footprint.kind != "fisher":
            raise NotComparableError(f"{name!r} is a footprint of kind {footprint.kind}; expected kind fisher")
    found = []
    for key, words in _RULES.items():
        values = {name: footprint.metadata.get(key) for name, footprint in footprints.items()}
        if differ(values):
            found.append(f"{words} is {by_value(values)}")
    if found:
        raise NotComparableError(
            f"the Fishers {quoted(footprints)} were not measured alike, {first_of(found)}. They weigh the models "
            "against each other, so measure all in one way"
        )


def _check_cover(models: Sequence[Tensors], footprints: dict[str, Footprint]) -> None:
    facts = models[0].facts
    wrong = []
    for key in dict.fromkeys(key for footprint in footprints.values() for key in footprint):
        holders = [name for name, footprint in footprints.items() if key in footprint]
        if key not in facts:
            wrong.append(f"{key} (in {quoted(holders)}, not in the models)")
        elif len(holders) < len(footprints):
            wrong.append(f"{key} (only in {quoted(holders)})")
        else:
            shapes = {name: list(shape_of(footprint.tensors, key)) for name, footprint in footprints.items()}
            if any(tuple(shape) != facts[key].shape for shape in shapes.values()):
                wrong.append(f"{key} (shape {by_value(shapes)}, {list(facts[key].shape)} in the models)")
    if wrong:
        raise NotComparableError(
            f"the Fishers {quoted(footprints)} do not cover the models' parameters, {first_of(wrong)}. Measure each "
            "model with the same include and exclude, and fuse the checkpoints that were measured"
        )


def _check_whose(models: Sequence[Tensors], samples: Mapping[str, Sample], footprints: dict[str, Footprint]) -> None:
    for model, (name, footprint) in zip(models, footprints.items(), strict=True):
        if _is_of(footprint, samples[model.name]):
            continue
        owner = next((other.name for other in models if _is_of(footprint, samples[other.name])), None)
        raise NotComparableError(
            f"{name!r} stands beside {model.name!r}, and was measured on other weights"
            + (
                f": those of {owner!r}. Give the footprints in the order of the models"
                if owner is not None
                else ". Measure this model, or give the checkpoint that was measured"
            )
        )


def _is_of(footprint: Footprint, sample: Sample) -> bool:
    """Tell whether a footprint is of these weights; one that recorded none of them is believed."""
    kinds = list(dict(footprint.metadata.get("model") or {}).get("dtypes") or [])
    dtype = DTYPES.get(str(kinds[0]).removeprefix("torch.")) if len(kinds) == 1 else None
    for key, recorded in footprint.weight_sample.items():
        held = sample[0].get(key)
        if held is not None and not torch.equal(recorded, held if dtype is None else held.to(dtype).float()):
            return False
    return True


def _unit(footprint: Footprint, name: str, normalize: str) -> float:
    """Find what a Fisher is divided by, so that a floor means the same for large and small networks."""
    # The root mean square stands for the Euclidean norm in the code of Matena & Raffel (2022): a common factor cancels.
    if normalize == "none":
        return 1.0 if any(bool(_read(footprint, name, key).any()) for key in footprint) else 0.0
    total, entries = 0.0, 0
    for key in footprint:
        values = _read(footprint, name, key)
        entries += values.numel()
        total += float(values.sum() if normalize == "trace" else values.square().sum())
    mean = total / max(entries, 1)
    return mean if normalize == "trace" else math.sqrt(mean)


def _read(footprint: Footprint, name: str, key: str) -> Tensor:
    values = footprint[key].detach().to(torch.float64)
    if values.numel() and not (float(values.min()) >= 0 and math.isfinite(float(values.max()))):
        raise IntegrityError(
            f"{key} of {name!r} is negative, nan or infinite somewhere; a Fisher is a mean of squares, so the "
            "footprint is damaged: measure it again"
        )
    return values


def layout_of(model: Tensors, folder: Path) -> Layout | None:
    """Find out how the class of a checkpoint reads its tensors: it loads running numbers in their place."""
    # Meanwhile that takes the memory of the model in float64. No code of the checkpoint's own is run.
    keys = [key for key, fact in model.facts.items() if fact.is_floating]
    shapes = [model.facts[key].shape for key in keys]
    starts = torch.tensor([0, *map(math.prod, shapes)]).cumsum(0)
    numbers = {
        key: torch.arange(start, start + math.prod(shape), dtype=torch.float64).reshape(shape)
        for key, shape, start in zip(keys, shapes, starts.tolist(), strict=False)
    }
    try:
        network, info = _loaded(str(folder), numbers)
    except Exception:  # whatever a class may raise: then the names in the files are the only ones known
        return None
    absent = set(info["missing_keys"])
    parameters = {name: p.detach() for name, p in network.named_parameters() if name not in absent}
    pieces: list[Piece] = []
    seen = torch.zeros(int(starts[-1]), dtype=torch.bool)
    for name, parameter in parameters.items():
        found, there = parameter.reshape(-1).long().sort()
        if found.numel() and not (int(found[0]) >= 0 and int(found[-1]) < len(seen)):
            return None
        seen[found] = True
        owners, counts = (torch.bucketize(found, starts, right=True) - 1).unique_consecutive(return_counts=True)
        parts = zip(found.split(counts.tolist()), there.split(counts.tolist()), strict=True)
        for owner, (part, places) in zip(owners.tolist(), parts, strict=True):
            here = _places(part - starts[owner], math.prod(shapes[owner]))
            pieces.append(Piece(name, keys[owner], _places(places, parameter.numel()), here))
    if int(seen.sum()) < sum(parameter.numel() for parameter in parameters.values()):
        return None  # some number is there twice: made anew, not moved
    if all(piece.parameter == piece.stored and isinstance(piece.there, slice) for piece in pieces):
        return None
    of_parameter: dict[str, list[Piece]] = {}
    of_stored: dict[str, list[Piece]] = {}
    for piece in pieces:
        of_parameter.setdefault(piece.parameter, []).append(piece)
        of_stored.setdefault(piece.stored, []).append(piece)
    return Layout(of_parameter, of_stored, {name: tuple(p.shape) for name, p in parameters.items()})


def _loaded(folder: str, numbers: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Sequence[str]]]:
    with quiet_transformers(), seeded():
        config = load_config(folder, None, trust=False)
        model, info = model_class_of(folder, config, None, trust=False).from_pretrained(
            None,
            config=config,
            state_dict=dict(numbers),
            dtype=torch.float64,
            output_loading_info=True,
            trust_remote_code=False,
        )
    return model, info


def _places(places: Tensor, size: int) -> Tensor | slice:
    """Say it shorter where the places are all there are, in their order."""
    return slice(None) if torch.equal(places, torch.arange(size)) else places
