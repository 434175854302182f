"""Maps of the weights that the benchmark knows: functions of a model, its initialisation and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.of_change import change_footprint, saliency_footprint

if TYPE_CHECKING:
    from commonweight.base.choices import FisherType
    from commonweight.data.batching import TokenBatches
    from commonweight.footprints.footprint import Footprint

Map = Callable[[nn.Module, nn.Module, "TokenBatches"], Mapping[str, Tensor]]
"""``(model, initialisation, rows)`` gives a tensor of the parameter's shape by its name: the larger, the likelier."""


def _fisher(kind: FisherType, model: nn.Module, initialisation: nn.Module, rows: TokenBatches) -> Mapping[str, Tensor]:  # noqa: ARG001
    return fisher(model, rows, fisher_type=kind).tensors


def _saliency(
    kind: FisherType, model: nn.Module, initialisation: nn.Module, rows: TokenBatches
) -> Mapping[str, Tensor]:
    found = fisher(model, rows, fisher_type=kind)
    return saliency_footprint(found, change_footprint(model, initialisation)).tensors


def changed(model: nn.Module, initialisation: nn.Module, rows: TokenBatches | None = None) -> Mapping[str, Tensor]:  # noqa: ARG001
    """Give the size of the change."""
    found: Footprint = change_footprint(model, initialisation)
    return {name: found[name].abs() for name in found.names}


MAPS: Mapping[str, Map] = {
    "Fisher, empirical": partial(_fisher, "empirical"),
    "Fisher, exact": partial(_fisher, "exact"),
    "Fisher, mc": partial(_fisher, "mc"),
    "saliency, empirical": partial(_saliency, "empirical"),
    "saliency, exact": partial(_saliency, "exact"),
}
"""The Fisher of every type, and Fisher times squared change. The size of the change itself is always beside them."""
