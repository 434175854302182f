"""Maps of the weights that the benchmark knows: functions of a planted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.of_change import change_footprint, saliency_footprint
from commonweight.interventions import tall_masks
from commonweight.studies.planted.models import another_change

if TYPE_CHECKING:
    from commonweight.base.choices import FisherType
    from commonweight.data.batching import TokenBatches
    from commonweight.footprints.footprint import Footprint
    from commonweight.studies.planted.models import Planted

Map = Callable[[nn.Module, nn.Module, "TokenBatches"], Mapping[str, Tensor]]
"""``(model, initialisation, rows)`` gives a tensor of the parameter's shape by its name: the larger, the likelier."""

PlantedMap = Callable[["Planted"], Mapping[str, Tensor]]
"""The same of a planted model, which also knows how it was trained."""

TALL_SCALE = 0.4
"""The middle of those that the paper chooses from."""


def of_rows(make: Map) -> PlantedMap:
    """Give a map its model, initialisation and held-out rows."""
    return lambda planted: make(planted.model, planted.initialisation, planted.map_rows())


def _fisher(kind: FisherType, planted: Planted) -> Mapping[str, Tensor]:
    return fisher(planted.model, planted.map_rows(), fisher_type=kind).tensors


def _saliency(kind: FisherType, planted: Planted) -> Mapping[str, Tensor]:
    found = fisher(planted.model, planted.map_rows(), fisher_type=kind)
    return saliency_footprint(found, change_footprint(planted.model, planted.initialisation)).tensors


def _tall(planted: Planted) -> Mapping[str, Tensor]:
    changes = {
        "planted": change_footprint(planted.model, planted.initialisation),
        "ordinary": another_change(replace(planted.plan, placebo=False)),
    }
    found = tall_masks(changes, TALL_SCALE)["planted"]
    return {name: found[name] for name in found.names}


def changed(planted: Planted) -> Mapping[str, Tensor]:
    """Give the size of the change."""
    found: Footprint = change_footprint(planted.model, planted.initialisation)
    return {name: found[name].abs() for name in found.names}


MAPS: Mapping[str, PlantedMap] = {
    "Fisher, empirical": partial(_fisher, "empirical"),
    "Fisher, exact": partial(_fisher, "exact"),
    "Fisher, mc": partial(_fisher, "mc"),
    "saliency, empirical": partial(_saliency, "empirical"),
    "saliency, exact": partial(_saliency, "exact"),
    "adam_v": lambda planted: planted.second_moment,
    "TALL mask": _tall,
    "size of the change": changed,
}
"""The Fisher of every type, Fisher times squared change, Adam's second moment while the set was trained, the TALL mask
beside a model of ordinary rows, and the size of the change, which is also beside all others."""
