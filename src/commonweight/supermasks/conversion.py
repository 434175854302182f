"""Turns a model into one whose weights are masked and whose batch norms are per task; decides what all tasks share."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from commonweight.base.errors import UsageError
from commonweight.supermasks.layer import MaskedWeight
from commonweight.supermasks.norm import TaskBatchNorm
from commonweight.supermasks.rules import MaskRule
from commonweight.supermasks.starts import ScoreStart, fan_in, signed_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.supermasks.selection import Selection

_CHOICES = {
    "weights": ("signed_constant", "keep"),
    "scores": ("independent", "shared"),
    "batch_norm": ("statistics", "affine"),
}


@dataclass(frozen=True)
class Options:
    """Everything a network is made with beside the model; the record of a saved one holds it."""

    rule: MaskRule
    weights: Literal["signed_constant", "keep"]
    scores: Literal["independent", "shared"]
    batch_norm: Literal["statistics", "affine"]
    include: Sequence[str] | None
    exclude: Sequence[str] | None
    seed: int
    weights_seed: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.rule, MaskRule):
            raise UsageError(f"rule must be a Threshold() or a TopK(density), or None, got {self.rule!r}")
        for word, choices in _CHOICES.items():
            if getattr(self, word) not in choices:
                raise UsageError(f"{word} must be one of {list(choices)}, got {getattr(self, word)!r}")
        for word in ("seed", "weights_seed"):
            number = getattr(self, word)
            if word == "weights_seed" and number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 0:
                raise UsageError(f"{word} must be a whole number of at least 0, got {number!r}")
            object.__setattr__(self, word, int(number))
        if self.weights_seed is not None and self.weights == "keep":
            raise UsageError("weights_seed draws weights, and weights='keep' keeps those of the model; leave one out")
        for word in ("include", "exclude"):
            object.__setattr__(self, word, _patterns(word, getattr(self, word)))

    def record(self) -> dict[str, Any]:
        """Describe them in plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"rule": self.rule.spec()}


def _patterns(word: str, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(patterns, str):
        raise UsageError(f"{word} must be a list of patterns, got one text: pass [{patterns!r}]")
    if patterns is None:
        return None
    given = tuple(patterns) if isinstance(patterns, Iterable) else (patterns,)
    if strange := [each for each in given if not isinstance(each, str)]:
        raise UsageError(f"{word} must be a list of texts, such as 'fc1' or '*.weight', got {strange[0]!r} in it")
    return given


@dataclass(frozen=True)
class Parts:
    """The pieces of a converted model, by the names they had before."""

    model: nn.Module
    masks: dict[str, MaskedWeight]
    norms: dict[str, TaskBatchNorm]
    layers: dict[str, tuple[str, ...]]
    """Masked weight -> names of the layers that use it."""

    parameters: dict[str, str]
    """Every parameter of the original -> where it is now; shared ones once."""

    buffers: dict[str, str]
    """Every buffer of the original that is part of its state -> where it is now."""

    unmasked: dict[str, str]
    frozen_before: tuple[str, ...]

    def weight(self, name: str) -> nn.Parameter:
        """Give a frozen parameter."""
        return self.model.get_parameter(self.parameters[name])

    def everything(self) -> dict[str, Tensor]:
        """List every parameter and buffer of the original, shared ones once."""
        tensors: dict[str, Tensor] = {name: self.weight(name) for name in self.parameters}
        return tensors | {name: self.model.get_buffer(path) for name, path in self.buffers.items()}

    def digest(self) -> str:
        """Hash the frozen parameters: names, shapes, types and bytes."""
        sha = hashlib.sha256()
        for name in self.parameters:
            tensor = self.weight(name).detach().cpu().contiguous()
            sha.update(f"{name}\0{list(tensor.shape)}\0{tensor.dtype}\0".encode())
            sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()


def copied(model: nn.Module) -> nn.Module:
    """Copy a model that is to be converted."""
    check_plain(model)
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"the model cannot be copied: {error}; expected one that copy.deepcopy takes: remove or detach what it "
            "keeps beside parameters and buffers, such as outputs of its last call"
        ) from error


def convert(model: nn.Module, options: Options, selection: Selection) -> Parts:
    """Convert a model in place."""
    sites = find_sites(model, options.include, options.exclude)
    frozen_before = tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    frozen = {id(model.get_parameter(name)) for name in frozen_before}
    for name in sites.masked:
        options.rule.check(name, model.get_parameter(name).numel())
    stored = set(model.state_dict())
    parameters = _paths(dict(model.named_parameters()), sites)
    buffers = _paths((name for name, _ in model.named_buffers() if name in stored), sites)
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None
    masks = {name: _mask(model, name, layers, frozen, options, selection) for name, layers in sites.masked.items()}
    model, norms = _convert_norms(model, sites.norms, frozen, options, selection)
    return Parts(model, masks, norms, sites.masked, parameters, buffers, sites.unmasked, frozen_before)


def _mask(
    model: nn.Module, name: str, layers: Sequence[str], frozen: set[int], options: Options, selection: Selection
) -> MaskedWeight:
    users = [cast("nn.Linear | _ConvNd", model.get_submodule(layer)) for layer in layers]
    weight, fan = users[0].weight, fan_in(users[0])
    if options.weights == "signed_constant":
        seed = options.seed if options.weights_seed is None else options.weights_seed
        with torch.no_grad():
            weight.copy_(signed_constant(weight.shape, fan, seed, name))
            for user in users:
                if user.bias is not None and id(user.bias) not in frozen:
                    user.bias.zero_()
    start = ScoreStart(options.seed, name, fan, options.scores == "shared")
    mask = MaskedWeight(options.rule, start, selection, weight.shape)
    for user in users:
        # unsafe: without it the registration would call the mask, and no task is selected yet
        parametrize.register_parametrization(user, "weight", mask, unsafe=True)
    return mask


def _convert_norms(
    model: nn.Module, names: Sequence[str], frozen: set[int], options: Options, selection: Selection
) -> tuple[nn.Module, dict[str, TaskBatchNorm]]:
    norms: dict[str, TaskBatchNorm] = {}
    wrapped: dict[int, TaskBatchNorm] = {}
    for name in names:
        norm = cast("_BatchNorm", model.get_submodule(name))
        if options.weights == "signed_constant":
            norm.reset_running_stats()
        own = [
            what
            for what, parameter in norm.named_parameters(recurse=False)
            if options.batch_norm == "affine" and what in {"weight", "bias"} and id(parameter) not in frozen
        ]
        wrapped[id(norm)] = norms[name] = TaskBatchNorm(norm, selection, tuple(own))
    for module in list(model.modules()):
        if not isinstance(module, TaskBatchNorm):
            for name, child in list(module._modules.items()):
                if id(child) in wrapped:
                    module._modules[name] = wrapped[id(child)]
    return wrapped.get(id(model), model), norms


def _paths(names: Iterable[str], sites: Sites) -> dict[str, str]:
    """Say where parameters and buffers will be after the conversion."""
    paths = {}
    for name in names:
        layer, _, own = name.rpartition(".")
        if name in sites.masked:
            own = f"parametrizations.{own}.original"
        elif layer in sites.norms:
            own = f"norm.{own}"
        paths[name] = f"{layer}.{own}" if layer else own
    return paths


@dataclass(frozen=True)
class Sites:
    """What a conversion will do."""

    masked: dict[str, tuple[str, ...]]
    """Weight, by the first name it has in the model -> names of all layers that use it; several where it is tied."""

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
    masked: dict[str, tuple[str, ...]] = {}
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
            masked[name] = tuple(owner.layer for owner in owners)
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
    return Sites(masked, unmasked, _norms(model))


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
            maskable = isinstance(module, (nn.Linear, _ConvNd)) and own == "weight"
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
    def found(kind: type[nn.Module], *, tracks: bool) -> list[str]:
        return [
            name
            for name, module in model.named_modules()
            if isinstance(module, kind) and isinstance(module.running_mean, Tensor) is tracks
        ]

    without = [name or "the model" for name in found(_BatchNorm, tracks=False)]
    shared = [name or "the model" for name in found(_InstanceNorm, tracks=True)]
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
    return tuple(found(_BatchNorm, tracks=True))
