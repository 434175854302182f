"""A fusion of modules in memory, planned and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from commonweight.decision.beside import check_beside
from commonweight.decision.configs import check_configs
from commonweight.decision.differences import by_value, differ, quoted
from commonweight.decision.fishers import fishers_for, open_footprints
from commonweight.decision.fusion import Fusion, plan_fusion
from commonweight.decision.same import check_same
from commonweight.decision.start import Sample, sample_of
from commonweight.decision.tensors import Tensors, of_module
from commonweight.errors import NotComparableError, UsageError
from commonweight.nn.identity import code_hashes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from commonweight.decision.recipe import Recipe
    from commonweight.footprint.footprint import Footprint


@dataclass(frozen=True)
class Modules:
    """Modules that can be fused."""

    names: tuple[str, ...]
    """What errors call them, the base last."""

    tensors: tuple[Tensors, ...]
    notes: tuple[str, ...]

    def samples(self) -> list[Sample]:
        """Take a sample of the weights of each.

        Returns:
            As :func:`commonweight.decision.start.sample_of` gives it.
        """
        return [sample_of(tensors) for tensors in self.tensors]


def open_modules(models: Sequence[nn.Module], base: nn.Module | None = None) -> Modules:
    """Check that modules are of one kind: class, configuration, names, shapes, types, and what no weight holds.

    Args:
        models: The modules.
        base: For task arithmetic.

    Returns:
        Their tensors.

    Raises:
        UsageError: If one is no module, or given twice.
        NotComparableError: If they differ in class, head, or anything else that is named, such as packed weights.
    """
    named: dict[str, nn.Module] = {f"model {number}": model for number, model in enumerate(models, 1)}
    if base is not None:
        named["the base"] = base
    for name, model in named.items():
        if not isinstance(model, nn.Module):
            raise UsageError(
                f"{name} is a {type(model).__name__} and others are modules; give either modules or checkpoint folders"
            )
        if (twin := next(other for other, held in named.items() if held is model)) != name:
            raise UsageError(
                f"{name} is the same module as {twin}; give each once, a model with the sum of its weights"
            )
    classes = {name: _class_name(model) for name, model in named.items()}
    if differ(classes):
        raise NotComparableError(
            f"{quoted(named)} are not of one class: {by_value(classes)}. Fuse models of one class, head included"
        )
    configs = {name: config for name, model in named.items() if (config := config_of(model)) is not None}
    notes = check_configs(configs) if len(configs) == len(named) else []
    tensors = tuple(of_module(model, name) for name, model in named.items())
    check_same(tensors)
    return Modules(tuple(named), tensors, (*notes, *check_beside(named)))


def plan_modules(
    recipe: Recipe,
    opened: Modules,
    footprints: Sequence[Footprint | str | Path] | None = None,
    samples: Sequence[Sample] | None = None,
) -> Fusion:
    """Plan the fusion of modules.

    Args:
        recipe: How; it has one weight per model, and the base, if any, is the last of those opened.
        opened: The modules.
        footprints: For the Fisher-weighted average.
        samples: Of the modules' weights, if they were taken already.

    Returns:
        The fusion.
    """
    models = opened.tensors[: len(recipe.weights)]
    base = opened.tensors[-1] if len(opened.tensors) > len(models) else None
    fishers = None
    if footprints is not None and recipe.normalize is not None:
        held = opened.samples() if samples is None else samples
        fishers = fishers_for(models, held, open_footprints(footprints), recipe.normalize)
    return plan_fusion(recipe, models, base, fishers)


def _class_name(model: nn.Module) -> str:
    """Name a class; one of a checkpoint's own code after what that says, wherever it lies."""
    home = "".join(f"{file} {sha} " for file, sha in code_hashes(model).items()) or f"{type(model).__module__}."
    return f"{home}{type(model).__qualname__}"


def config_of(model: nn.Module) -> Mapping[str, Any] | None:
    """Give the configuration of a Hugging Face model, its class named; None for other modules."""
    found = getattr(getattr(model, "config", None), "to_dict", None)
    config = found() if callable(found) else None
    return {**config, "architectures": [type(model).__name__]} if isinstance(config, dict) else None
