"""The models that are to be merged, all in memory: merged weights take the place of their own, and are taken back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import NotComparableError, UsageError
from commonweight.base.names import some
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.of_change import change_footprint, shared_names, weights_of
from commonweight.fusion.compatible import check_heads
from commonweight.fusion.fishers import fishers_for
from commonweight.fusion.fusion import plan_fusion
from commonweight.fusion.methods import make_method
from commonweight.fusion.modules import config_of
from commonweight.fusion.tensors import Facts, Tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from commonweight.footprints.footprint import Footprint
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import MeasureOptions
    from commonweight.studies.merge_check.plan import Members, Trial

    Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Parents:
    """Models of one initialisation, in the order of their names."""

    loaded: Mapping[str, LoadedModel]
    initialisation: nn.Module | Path
    start: Mapping[str, Tensor]
    """The initialisation of every parameter that all of them share, which are those that are merged."""

    @classmethod
    def of(
        cls,
        loaded: Mapping[str, LoadedModel],
        initialisation: nn.Module | Path,
        measure: MeasureOptions,
        *,
        merge_heads: bool,
    ) -> Parents:
        """Find what the models share: name, shape, and the parameter of the initialisation; of heads only if asked."""
        start = weights_of("initialisation", initialisation)
        heads = {name: head_of(one.model) for name, one in loaded.items()}
        each = []
        for one in loaded.values():
            chosen = choose_parameters(one.model, measure.include or None, measure.exclude or None)
            found = shared_names(dict(one.model.named_parameters()), start)
            each.append({name: other for name, other in found.items() if name in chosen})
        first = each[0]
        names = [name for name in first if all(found.get(name) == first[name] for found in each)]
        if merge_heads:
            _check_heads(loaded, heads, names)
        else:
            kept = {name for of_one in heads.values() for name in of_one}
            names = [name for name in names if name not in kept]
        if not names:
            raise NotComparableError(
                "the models have no parameter in common with each other and their initialisation; give models of one "
                "architecture, trained from one checkpoint"
            )
        model = next(iter(loaded.values())).model
        held = {name: start[first[name]].detach().to(model.get_parameter(name), copy=True) for name in names}
        return cls(loaded, initialisation, held)

    def own(self, model: str) -> list[str]:
        """List the parameters of a model that are not merged."""
        return [name for name, _ in self.loaded[model].model.named_parameters() if name not in self.start]

    def change(self, model: str) -> Footprint:
        """Take what training changed in the parameters that are merged."""
        found = change_footprint(self.loaded[model].model, self.initialisation)
        return replace(found, tensors={name: found[name] for name in self.start})

    def weights(self, model: str, name: str) -> Tensor:
        """Give a parameter of a model."""
        return self.loaded[model].model.get_parameter(name).detach()

    def merged(self, members: Members, trial: Trial, fishers: Mapping[str, Footprint]) -> Weights:
        """Merge some of the models in one way."""
        given = {} if trial.scale is None else {"scale": trial.scale}
        is_fisher, is_moved = trial.method == "fisher", trial.method == "task_arithmetic"
        method = make_method(trial.method, has_base=is_moved, has_footprints=is_fisher, **given)
        models = [self._tensors(model) for model in members]
        found = None
        if is_fisher:
            samples = {one.name: one.sample() for one in models}
            found = fishers_for(models, samples, {name: fishers[name] for name in members}, method.normalization)
        base = Tensors("the initialisation", models[0].facts, self.start.__getitem__) if is_moved else None
        fusion = plan_fusion(method, method.checked_weights(None, len(models)), models, base, found)
        return {name: fusion.tensor(name) for name in self.start}

    def _tensors(self, model: str) -> Tensors:
        facts = {
            name: Facts(tuple(weight.shape), weight.dtype, device=weight.device)
            for name in self.start
            for weight in (self.weights(model, name),)
        }
        return Tensors(model, facts, lambda name: self.weights(model, name))

    @contextlib.contextmanager
    def holding(self, model: str, weights: Weights) -> Iterator[LoadedModel]:
        """Put weights into a model, whose other parameters and buffers stay; afterwards it is bit for bit as before."""
        own = {name: self.weights(model, name).clone() for name in weights}
        try:
            self._put(model, weights)
            yield self.loaded[model]
        finally:
            self._put(model, own)

    @torch.no_grad()
    def _put(self, model: str, weights: Weights) -> None:
        for name, weight in weights.items():
            self.loaded[model].model.get_parameter(name).copy_(weight)


def head_of(model: nn.Module) -> list[str]:
    """Name the parameters of the head of a Hugging Face model: those outside its encoder. Other modules have none."""
    encoder = {id(weight) for weight in getattr(model, "base_model", model).parameters()}
    return [name for name, weight in model.named_parameters() if id(weight) not in encoder]


def _check_heads(loaded: Mapping[str, LoadedModel], heads: Mapping[str, Sequence[str]], shared: Sequence[str]) -> None:
    """Check that heads can be averaged: every model has one, they mean the same, and share the initialisation."""
    if headless := [name for name, of_one in heads.items() if not of_one]:
        raise UsageError(
            f"which weights are the head of {headless[0]} is not known, only of Hugging Face models with a head; leave "
            "out {merge_heads}, and all weights that share the initialisation are merged",
            merge_heads=False,
        )
    check_heads({name: config for name, one in loaded.items() if (config := config_of(one.model)) is not None})
    if lacking := {name: None for of_one in heads.values() for name in of_one if name not in shared}:
        raise NotComparableError(
            f"the heads cannot be averaged: {some(list(lacking))} do not share an initialisation, or are left out; "
            "give an initialisation that holds the head that all models began with, or leave out {merge_heads}",
            merge_heads=False,
        )
