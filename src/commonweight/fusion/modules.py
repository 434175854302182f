"""A fusion of modules in memory, planned and checked."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import by_value, differ, quoted
from commonweight.fusion.beside import check_beside
from commonweight.fusion.compatible import check_configs, check_same
from commonweight.fusion.fishers import fishers_for, open_footprints
from commonweight.fusion.fusion import Fusion, plan_fusion
from commonweight.fusion.initialisation import Sample, sample_of
from commonweight.fusion.methods import make_recipe
from commonweight.fusion.tensors import Tensors, module_tensors, of_module
from commonweight.models.identity import code_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.footprints.footprint import Footprint
    from commonweight.fusion.methods import Method, Normalize, Recipe


@dataclass(frozen=True)
class Modules:
    """Modules that can be fused."""

    names: tuple[str, ...]
    """What errors call them, the base last."""

    tensors: tuple[Tensors, ...]
    notes: tuple[str, ...]

    def samples(self) -> list[Sample]:
        """Take a sample of the weights of each."""
        return [sample_of(tensors) for tensors in self.tensors]


def open_modules(models: Sequence[nn.Module], base: nn.Module | None = None) -> Modules:
    """Check that modules are of one kind: class, configuration, names, shapes, types, and what no weight holds."""
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
    """Plan the fusion of modules."""
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


M = TypeVar("M", bound=nn.Module)


@contextlib.contextmanager
def fused_at(
    models: Sequence[M],
    weights: Sequence[float] | None = None,
    method: Method = "average",
    *,
    base: nn.Module | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    floor: float | None = None,
    normalize: Normalize | None = None,
    scale: float | None = None,
) -> Iterator[M]:
    """Load fused weights into the first model, in place, and put its own back afterwards.

    The tensors keep their places, so optimisers, compiled modules and views of them stay valid. Checks are those of
    :func:`commonweight.fuse`, without the search for a shared initialisation.

    Args:
        models: Modules of one class; the first is changed meanwhile.
        weights: As for :func:`commonweight.fuse`, as are all others.
        method: ``average``, ``task_arithmetic`` or ``fisher``.
        base: For ``task_arithmetic``.
        footprints: For ``fisher``, of the models as they are.
        floor: For ``fisher``.
        normalize: For ``fisher``.
        scale: For ``task_arithmetic``.

    Yields:
        The first model, with fused weights; its mode is as it was. On leaving, also by an error, every tensor is bit
        for bit what it was.

    Example:
        >>> from commonweight.fusion import interpolation_path
        >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = a.weight.data.fill_(0.0), b.weight.data.fill_(2.0)
        >>> curve = []
        >>> for point in interpolation_path(points=3):
        ...     with fused_at([a, b], point) as model:
        ...         curve.append(model.weight.item())
        >>> curve, a.weight.item()
        ([0.0, 1.0, 2.0], 0.0)
    """
    recipe = make_recipe(
        method,
        len(models),
        weights,
        scale=scale,
        floor=floor,
        normalize=normalize,
        has_base=base is not None,
        has_footprints=footprints is not None,
    )
    opened = open_modules(models, base)
    tensors = module_tensors(models[0])
    own = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    # Read from the copy: the module's own tensors may share memory, and are overwritten one by one.
    first = replace(opened.tensors[0], read=own.__getitem__)
    fusion = plan_modules(recipe, replace(opened, tensors=(first, *opened.tensors[1:])), footprints)
    try:
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(fusion.tensor(key))
        yield models[0]
    finally:
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(own[key])
