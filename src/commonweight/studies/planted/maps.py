"""Maps of the weights that the benchmark knows: functions of a model with a planted shortcut, and one without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.of_change import change_footprint, saliency_footprint
from commonweight.interventions import tall_masks

if TYPE_CHECKING:
    from commonweight.base.choices import FisherType
    from commonweight.footprints.footprint import Footprint
    from commonweight.studies.planted.models import Planted

Map = Callable[["Planted", "Planted"], Mapping[str, Tensor]]
"""``(planted, other)`` gives a tensor of the parameter's shape by its name: the larger, the likelier. ``other`` is
trained from the same initialisation, without the shortcut."""

TALL_SCALE = 0.4
"""λ of TALL masks."""


def _fisher(kind: FisherType, planted: Planted, _: Planted) -> Mapping[str, Tensor]:
    return fisher(planted.model, planted.map_rows(), fisher_type=kind).tensors


def _saliency(kind: FisherType, planted: Planted, _: Planted) -> Mapping[str, Tensor]:
    found = fisher(planted.model, planted.map_rows(), fisher_type=kind)
    return saliency_footprint(found, _change(planted)).tensors


def _second_moment(planted: Planted, _: Planted) -> Mapping[str, Tensor]:
    return planted.second_moment


def _tall(planted: Planted, other: Planted) -> Mapping[str, Tensor]:
    return tall_masks({"this": _change(planted), "other": _change(other)}, TALL_SCALE)["this"].tensors


def _change(planted: Planted) -> Footprint:
    return change_footprint(planted.model, planted.initialisation)


def changed(planted: Planted) -> Mapping[str, Tensor]:
    """Give the size of the change."""
    found = _change(planted)
    return {name: found[name].abs() for name in found.names}


MAPS: Mapping[str, Map] = {
    "Fisher, empirical": partial(_fisher, "empirical"),
    "Fisher, exact": partial(_fisher, "exact"),
    "Fisher, mc": partial(_fisher, "mc"),
    "saliency, empirical": partial(_saliency, "empirical"),
    "saliency, exact": partial(_saliency, "exact"),
    "adam_v": _second_moment,
    "TALL mask": _tall,
}
"""The Fisher of every type, Fisher times squared change, Adam's second moment, and the TALL mask beside the other
model. The size of the change itself is always beside them."""
