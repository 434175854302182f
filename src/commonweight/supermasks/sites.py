"""What of a model is masked, what becomes per task, and what all tasks share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from commonweight.base.errors import UsageError
from commonweight.supermasks.passes import call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.autograd.graph import Node

    from commonweight.supermasks.norm import TaskBatchNorm


MASKABLE = (nn.Linear, _ConvNd)
"""Layers whose ``weight`` is masked."""


@dataclass(frozen=True)
class Site:
    """One weight to be masked."""

    name: str
    """The first name it has in the model, such as ``fc1.weight``."""

    layers: tuple[str, ...]
    """Names of all layers that use it; more than one where a weight is tied."""


@dataclass(frozen=True)
class Sites:
    """What a conversion will do."""

    masked: tuple[Site, ...]
    unmasked: dict[str, str]
    """Every other parameter -> why all tasks share it."""

    norms: tuple[str, ...]
    """Names of the batch norms, in model order."""


def find_sites(model: nn.Module, include: Sequence[str] | None, exclude: Sequence[str] | None) -> Sites:
    """Decide what happens to every parameter of a model."""
    holders = _holders(model)
    if lazy := [name for name, owners in holders.items() if is_lazy(owners[0].parameter)]:
        raise UsageError(
            f"{_subject(lazy, 'has', 'have')} no shape yet; expected an initialised model: call it once on a batch "
            "first"
        )
    chosen = _matching(holders, include, "include")
    left_out = _matching(holders, exclude, "exclude") or set()
    masked: list[Site] = []
    unmasked: dict[str, str] = {}
    unmaskable: dict[str, list[_Holder]] = {}
    for name, owners in holders.items():
        parameter, reason = owners[0].parameter, ""
        if not parameter.requires_grad:
            reason = "was frozen before"
        elif parameter.dim() < 2:
            reason = "a batch norm's" if isinstance(owners[0].module, _BatchNorm) else "a vector, such as a bias"
        elif name in left_out or (chosen is not None and name not in chosen):
            reason = "left out by include or exclude"
        elif all(owner.maskable for owner in owners):
            masked.append(Site(name, tuple(owner.layer for owner in owners)))
            continue
        else:
            unmaskable[name] = owners
        unmasked[name] = reason
    if unmaskable:
        raise UsageError(_cannot_mask(unmaskable, exclude or ()))
    if not masked:
        raise UsageError(
            f"nothing to mask: expected a trainable Linear or Conv weight, the model has {len(holders)} parameters, "
            "none of them one that include, exclude and requires_grad allow"
        )
    return Sites(tuple(masked), unmasked, _norms(model))


def check_plain(model: nn.Module) -> None:
    """Refuse weights that are computed from others at every use: a mask would see the wrong tensor."""
    computed: dict[tuple[str, str], list[str]] = {}
    for layer, module in model.named_modules():
        found = [(_PARAMETRISED, own) for own in module.parametrizations] if is_parametrized(module) else []
        for hook in module._forward_pre_hooks.values():
            found += [(way, getattr(hook, own)) for kind, own, way in _COMPUTED if isinstance(hook, kind)]
        for way, own in found:
            computed.setdefault(way, []).append(f"{layer}.{own}" if layer else own)
    if computed:
        found_so = "; ".join(f"{_subject(names, 'is', 'are')} {how}" for (how, _), names in computed.items())
        calls = " and ".join(f"torch.nn.utils.{undo}(layer, name)" for _, undo in computed)
        raise UsageError(
            f"{found_so}: expected plain weights, since a mask would see the wrong tensor; call {calls} for each first"
        )


_PARAMETRISED = "parametrised already", "parametrize.remove_parametrizations"


_COMPUTED = (
    (BasePruningMethod, "_tensor_name", ("pruned", "prune.remove")),
    (WeightNorm, "name", ("weight-normed", "remove_weight_norm")),
    (SpectralNorm, "name", ("spectral-normed", "remove_spectral_norm")),
)
"""A hook before the forward pass, its attribute with the weight's name, and what it makes of it."""


@dataclass(frozen=True)
class _Holder:
    layer: str
    module: nn.Module
    parameter: nn.Parameter
    maskable: bool


def _holders(model: nn.Module) -> dict[str, list[_Holder]]:
    """Every parameter, by its first name, with all modules that hold it."""
    by_identity: dict[int, tuple[str, list[_Holder]]] = {}
    for layer, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{layer}.{own}" if layer else own
            maskable = isinstance(module, MASKABLE) and own == "weight"
            if maskable and not is_lazy(parameter) and not parameter.is_floating_point():
                raise UsageError(f"{name} is {parameter.dtype}: expected a floating-point weight; masks need one")
            by_identity.setdefault(id(parameter), (name, []))[1].append(_Holder(layer, module, parameter, maskable))
    return dict(by_identity.values())


def _matching(holders: dict[str, list[_Holder]], patterns: Sequence[str] | None, word: str) -> set[str] | None:
    if patterns is None:
        return None
    found: set[str] = set()
    for pattern in patterns:
        matches = {
            name
            for name, owners in holders.items()
            if fnmatchcase(name, pattern) or any(_inside(owner.layer, pattern) for owner in owners)
        }
        if not matches:
            raise UsageError(
                f"{word} pattern {pattern!r} matches no parameter and no module; names are {list(holders)}"
            )
        found |= matches
    return found


def _inside(layer: str, pattern: str) -> bool:
    """Whether a module, or one that it is a part of, matches."""
    parts = layer.split(".")
    return any(fnmatchcase(".".join(parts[:depth]), pattern) for depth in range(1, len(parts) + 1))


def _cannot_mask(unmaskable: dict[str, list[_Holder]], exclude: Sequence[str]) -> str:
    places: dict[str, dict[str, None]] = {}
    for owners in unmaskable.values():
        other = next(owner for owner in owners if not owner.maskable)
        places.setdefault(type(other.module).__name__, {})[other.layer or "the model"] = None
    kinds = ", ".join(
        f"{kind} ({next(iter(layers))}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''})"
        for kind, layers in places.items()
    )
    packed = any(name.endswith("in_proj_weight") for name in unmaskable)
    return (
        f"weights of {kinds} cannot be masked: only those of Linear and Conv layers are, and a part of the network "
        f"that no task can choose from should not go unnoticed; pass exclude={[*exclude, *unmaskable]!r} to leave "
        "them frozen and shared by all tasks"
        + (
            ". To mask query, key and value of packed attention, use three Linear layers, with the weights "
            "in_proj_weight.chunk(3) and the biases in_proj_bias.chunk(3)"
            if packed
            else ""
        )
    )


def _subject(names: Sequence[str], one: str, several: str) -> str:
    return f"{', '.join(names)} {one if len(names) == 1 else several}"


def _norms(model: nn.Module) -> tuple[str, ...]:
    tracking: list[str] = []
    without: list[str] = []
    shared: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, (_BatchNorm, _InstanceNorm)):
            tracks = isinstance(module.running_mean, Tensor)
            if isinstance(module, _BatchNorm) and tracks:
                tracking.append(name)
            elif isinstance(module, _BatchNorm):
                without.append(name or "the model")
            elif tracks:
                shared.append(name or "the model")
    if without:
        raise UsageError(
            f"{_subject(without, 'keeps', 'keep')} no running statistics, so an output would depend on the other rows "
            "of its batch; expected track_running_stats=True"
        )
    if shared:
        raise UsageError(
            f"{_subject(shared, 'is an instance norm', 'are instance norms')} with running statistics, which tasks "
            "would share and change; expected track_running_stats=False, or a batch norm"
        )
    return tuple(tracking)


def norms_behind(
    model: nn.Module, layers: Mapping[str, Iterable[nn.Module]], norms: Mapping[str, TaskBatchNorm], inputs: Any
) -> dict[str, str | None]:
    """Follow the outputs of layers to the batch norms that receive them."""
    # The graph that autograd records is walked back from the input of each batch norm, in the order they are called,
    # until it meets the output of a masked layer or of another batch norm. So additions, activations, pooling and
    # reshaping in between do not matter, another masked layer does.
    behind: dict[str, str | None] = dict.fromkeys(layers)
    marks: dict[Node, str | None] = {}

    def mark(output: Tensor, name: str | None) -> Tensor:
        marked: Tensor = _Mark.apply(output, torch.ones((), requires_grad=True))  # type: ignore[no-untyped-call]
        if marked.grad_fn is not None:
            marks[marked.grad_fn] = name
        return marked

    def reached(inputs: Tensor) -> set[str]:
        found: set[str] = set()
        seen: set[Node] = set()
        waiting = [inputs.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in marks:
                name = marks[node]
                found |= set() if name is None else {name}
            else:
                waiting += [following for following, _ in node.next_functions]
        return found

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for weight, users in layers.items():

            def on_layer(_module: nn.Module, _inputs: Any, output: Tensor, weight: str = weight) -> Tensor:
                return mark(output, weight)

            for user in users:
                hooks.callback(user.register_forward_hook(on_layer).remove)
        for norm_name, norm in norms.items():

            def on_norm(
                _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, norm: str = norm_name
            ) -> Tensor:
                for weight in reached(inputs[0]):
                    behind[weight] = behind[weight] or norm
                return mark(output, None)

            hooks.callback(norm.register_forward_hook(on_norm).remove)
        call(model, inputs)
    return behind


class _Mark(torch.autograd.Function):
    """A copy that leaves a node of its own in the graph."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, token: Tensor) -> Tensor:  # noqa: ARG004
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None
