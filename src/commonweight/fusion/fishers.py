"""The Fishers of a fusion: one footprint per model, of exactly its weights, brought to one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.base.names import by_value, differ, first_of, quoted
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.footprints.footprint import Footprint
from commonweight.models.placement import DTYPES
from commonweight.overlaps.measures.gram import shape_of
from commonweight.overlaps.table.layout import beware_of_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from commonweight.fusion.initialisation import Sample
    from commonweight.fusion.layout import Layout
    from commonweight.fusion.methods import Normalize
    from commonweight.fusion.tensors import Facts, Tensors

RECENT = 2
"""Parameters of each Fisher kept in memory where several stored tensors are parts of one: experts come in turns."""

_RULES = {"fisher_type": "Fisher type", "loss": "loss"}


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
            found[name] = Footprint.load(Path(one).expanduser())
        else:
            raise UsageError(f"footprint {number} must be a Footprint or a folder, got {type(one).__name__}")
    return found


def fishers_for(
    models: Sequence[Tensors], samples: Sequence[Sample], footprints: dict[str, Footprint], normalize: Normalize
) -> Fishers:
    r"""Check that footprints fit the models, and find their units."""
    # The unit of a Fisher is ``norm``: its root mean square, as in the code of Matena & Raffel (2022), which divides by
    # the Euclidean norm (a common factor of all cancels); ``trace``: its mean; ``none``: 1. With either of the first
    # two
    # a floor means the same for large and small networks.
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


def _check_whose(models: Sequence[Tensors], samples: Sequence[Sample], footprints: dict[str, Footprint]) -> None:
    for position, (model, (name, footprint)) in enumerate(zip(models, footprints.items(), strict=True)):
        if _is_of(footprint, samples[position]):
            continue
        owner = next((m.name for m, sample in zip(models, samples, strict=True) if _is_of(footprint, sample)), None)
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


def _unit(footprint: Footprint, name: str, normalize: Normalize) -> float:
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
