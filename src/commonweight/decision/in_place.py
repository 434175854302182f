"""Fused weights in one module for a while: a curve of many points needs the models, one copy, and no more."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from commonweight.decision.modules import open_modules, plan_modules
from commonweight.decision.recipe import make_recipe
from commonweight.decision.tensors import module_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from commonweight.decision.recipe import Method, Normalize
    from commonweight.footprint.footprint import Footprint

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
    :func:`commonweight.fuse`, without the search for a common start.

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
        >>> from commonweight.decision import interpolation_path
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
