"""Modules in memory: checked, fused into a new one or in place."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import by_value, differ, quoted
from commonweight.fusion.beside import check_beside, computed
from commonweight.fusion.compatible import check_configs, check_same
from commonweight.fusion.fishers import fishers_for, open_footprints
from commonweight.fusion.fusion import Fusion, is_worrying, notes_on, on_initialisation, plan_fusion
from commonweight.fusion.methods import make_method
from commonweight.fusion.tensors import Tensors, module_tensors, of_module
from commonweight.models.identity import code_hashes
from commonweight.overlaps.alignment import alignment_of_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.weight_sample import Sample

M = TypeVar("M", bound=nn.Module)


def fuse(
    models: Sequence[M],
    weights: Sequence[float] | None = None,
    method: str = "average",
    *,
    base: nn.Module | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    note: Callable[[str], None] | None = None,
    **parameters: float | str | None,
) -> M:
    r"""Fuse the weights of several modules into a new one.

    ``average``: the weighted average (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482),

    .. math:: \theta = \sum_i w_i \theta_i, \qquad \sum_i w_i = 1.

    ``task_arithmetic``: task vectors added to a base (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089),

    .. math:: \theta = \theta_b + \lambda \sum_i w_i (\theta_i - \theta_b).

    ``fisher``: each weight averaged by how much it matters to each model (Matena & Raffel 2022,
    https://arxiv.org/abs/2111.09832),

    .. math:: \theta = \sum_i w_i \max(\hat F_i, \varepsilon)\, \theta_i \Big/ \sum_i w_i \max(\hat F_i, \varepsilon),

    with each Fisher scaled as a whole to the same size. Where no Fisher exceeds the floor it is the plain average.

    Whatever can be compared is compared first: class, configuration, labels, names, shapes, types. Averages are
    computed in float32 (float64 for float64 models and with Fishers) and kept in the models' type. Buffers are fused
    like weights; whole numbers must be equal, but for single counts, which are the first model's. Masks, and tensors
    that are neither parameter nor buffer (packed weights, extra state, plain attributes), must be equal too.

    Args:
        models: Modules of one class.
        weights: One per model. ``average``: any sign, sum 1; ``fisher``: at least 0, sum 1; ``task_arithmetic``: any.
            None: equal ones, ``1 / len(models)``; for ``task_arithmetic`` 1 each, as in the paper.
        method: ``average``, ``task_arithmetic`` or ``fisher``; in general a name in ``commonweight.fusion.METHODS``.
        base: ``task_arithmetic``: what the models were fine-tuned from.
        footprints: ``fisher``: a Fisher of each model, in their order, or folders of them.
        note: Takes one sentence at a time that the user should hear (no shared initialisation, or none of a head;
            labels without names; counts that differ; weights no Fisher covers, Fishers of a small effective sample
            size, models that do not give the labels of their data). None: they become warnings.
        parameters: Of the method. ``task_arithmetic``: ``scale``, λ, 1 by default. ``fisher``: ``floor``, ε, above 0,
            1e-6 by default; ``normalize``, what each Fisher is divided by: its root mean square (``norm``, the
            default, as in the paper's code), its mean (``trace``), or nothing (``none``).

    Returns:
        A new module: a copy of the first with fused tensors.

    Raises:
        UsageError: If an argument is not what it should be; the message has the remedy.
        NotComparableError: If models differ in something that has to be equal; the first differences are named.
        MeasurementError: If a weight is nan or infinite, before or after.

    Example:
        >>> import torch, commonweight
        >>> start = torch.nn.Linear(2, 1, bias=False)
        >>> a, b = copy.deepcopy(start), copy.deepcopy(start)
        >>> for model, weights in ((start, [4.0, 4.0]), (a, [5.0, 4.0]), (b, [4.0, 6.0])):
        ...     _ = model.weight.data.copy_(torch.tensor([weights]))
        >>> commonweight.fuse([a, b]).weight.tolist()
        [[4.5, 5.0]]
        >>> commonweight.fuse([a, b], method="task_arithmetic", base=start).weight.tolist()
        [[5.0, 6.0]]
    """
    opened = open_modules(models, base)
    fusion = plan_modules(opened, weights, method, footprints, parameters)
    start = alignment_of_samples(opened.samples)
    tell = functools.partial(warnings.warn, stacklevel=2) if note is None else note
    for sentence in [*opened.notes, *([on_initialisation(start)] if is_worrying(start) else []), *notes_on(fusion)]:
        tell(sentence)
    # What hooks compute from weights is computed again from the fused ones.
    old = [vars(module)[name] for module, name, _ in computed(models[0])]
    fused = copy.deepcopy(models[0], {id(tensor): tensor.detach().clone() for tensor in old})
    with torch.no_grad():
        for key, tensor in module_tensors(fused).items():
            tensor.copy_(fusion.tensor(key))
        for module, _, hook in list(computed(fused)):
            mode, module.training = module.training, False  # in training a spectral norm would take a step
            hook(module, ())
            module.training = mode
    return fused


@contextlib.contextmanager
def fused_at(
    models: Sequence[M],
    weights: Sequence[float] | None = None,
    method: str = "average",
    *,
    base: nn.Module | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    **parameters: float | str | None,
) -> Iterator[M]:
    """Load fused weights into the first model, in place, and put its own back afterwards.

    The tensors keep their places, so optimisers, compiled modules and views of them stay valid. Arguments and checks
    are those of :func:`commonweight.fuse`, without the search for a shared initialisation.

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
    opened = open_modules(models, base)
    tensors = module_tensors(models[0])
    own = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    # Read from the copy: the module's own tensors may share memory, and are overwritten one by one.
    first = replace(opened.models[0], read=own.__getitem__)
    copied = replace(opened, models=(first, *opened.models[1:]))
    fusion = plan_modules(copied, weights, method, footprints, parameters)
    try:
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(fusion.tensor(key))
        yield models[0]
    finally:
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(own[key])


@dataclass(frozen=True)
class Modules:
    """Modules that can be fused."""

    models: tuple[Tensors, ...]
    base: Tensors | None
    notes: tuple[str, ...]

    @functools.cached_property
    def samples(self) -> dict[str, Sample]:
        """A sample of the weights of each, the base among them."""
        return {one.name: one.sample() for one in (*self.models, *([self.base] if self.base else []))}


def open_modules(models: Sequence[nn.Module], base: nn.Module | None = None) -> Modules:
    """Check that modules are of one kind: class, configuration, names, shapes, types, and what no weight holds."""
    if isinstance(models, str | Path | nn.Module):
        raise UsageError(f"expected a list of models, got one {type(models).__name__}; put it into a list")
    named: dict[str, nn.Module] = {f"model {number}": model for number, model in enumerate(models, 1)}
    if not named:
        raise UsageError("expected at least one model to fuse, got none; give modules")
    if base is not None:
        named["the base"] = base
    for name, model in named.items():
        if not isinstance(model, nn.Module):
            raise UsageError(
                f"{name} is a {type(model).__name__}, expected a module; commonweight.fuse_checkpoints fuses folders"
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
    notes += check_beside(named)
    return Modules(tensors[: len(models)], None if base is None else tensors[-1], tuple(notes))


def plan_modules(
    opened: Modules,
    weights: Sequence[float] | None,
    method: str,
    footprints: Sequence[Footprint | str | Path] | None,
    parameters: Mapping[str, float | str | None],
) -> Fusion:
    """Plan the fusion of modules."""
    made = make_method(method, has_base=opened.base is not None, has_footprints=footprints is not None, **parameters)
    shares = made.checked_weights(weights, len(opened.models))
    fishers = None
    if footprints is not None:
        fishers = fishers_for(opened.models, opened.samples, open_footprints(footprints), made.normalization)
    return plan_fusion(made, shares, opened.models, opened.base, fishers)


def _class_name(model: nn.Module) -> str:
    """Name a class; one of a checkpoint's own code after what that says, wherever it lies."""
    home = "".join(f"{file} {sha} " for file, sha in code_hashes(model).items()) or f"{type(model).__module__}."
    return f"{home}{type(model).__qualname__}"


def config_of(model: nn.Module) -> Mapping[str, Any] | None:
    """Give the configuration of a Hugging Face model, its class named; None for other modules."""
    found = getattr(getattr(model, "config", None), "to_dict", None)
    config = found() if callable(found) else None
    return {**config, "architectures": [type(model).__name__]} if isinstance(config, dict) else None
