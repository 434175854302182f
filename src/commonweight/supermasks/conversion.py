"""Turns a model into one whose weights are masked and whose batch norms are per task."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from commonweight.base.errors import UsageError
from commonweight.supermasks.layer import MaskedWeight, ScoreStart
from commonweight.supermasks.norm import TaskBatchNorm
from commonweight.supermasks.sites import Site, Sites, check_plain, find_sites
from commonweight.supermasks.starts import fan_in, signed_constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    from commonweight.supermasks.rules import MaskRule
    from commonweight.supermasks.selection import Selection


@dataclass(frozen=True)
class Options:
    """Everything a network is made with beside the model; the record of a saved one holds it."""

    rule: MaskRule
    weights: Literal["signed_constant", "keep"]
    scores: Literal["independent", "shared"]
    batch_norm: Literal["statistics", "affine"]
    include: tuple[str, ...] | None
    exclude: tuple[str, ...] | None
    seed: int
    weights_seed: int | None


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
    for site in sites.masked:
        options.rule.check(site.name, model.get_parameter(site.name).numel())
    stored = set(model.state_dict())
    parameters = _paths(dict(model.named_parameters()), sites)
    buffers = _paths((name for name, _ in model.named_buffers() if name in stored), sites)
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None
    masks = {site.name: _mask(model, site, frozen, options, selection) for site in sites.masked}
    model, norms = _convert_norms(model, sites.norms, frozen, options, selection)
    layers = {site.name: site.layers for site in sites.masked}
    return Parts(model, masks, norms, layers, parameters, buffers, sites.unmasked, frozen_before)


def _mask(model: nn.Module, site: Site, frozen: set[int], options: Options, selection: Selection) -> MaskedWeight:
    users = [cast("nn.Linear | _ConvNd", model.get_submodule(layer)) for layer in site.layers]
    weight, fan, name = users[0].weight, fan_in(users[0]), site.name
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
    masked = {site.name for site in sites.masked}
    norms = set(sites.norms)
    paths = {}
    for name in names:
        layer, _, own = name.rpartition(".")
        if name in masked:
            own = f"parametrizations.{own}.original"
        elif layer in norms:
            own = f"norm.{own}"
        paths[name] = f"{layer}.{own}" if layer else own
    return paths
