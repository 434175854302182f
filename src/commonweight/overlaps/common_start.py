"""Do two models have a common start in a layer, or in layers taken together?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from commonweight.footprint.footprint import layer_of
from commonweight.overlaps._named import Named
from commonweight.overlaps.alignment import reading_of

if TYPE_CHECKING:
    from commonweight.overlaps.alignment import Reading
    from commonweight.overlaps.derived import Derived

MOSTLY = 0.5
"""Layers without a common start that hold more than this share of a trace leave the layers taken together without."""


class Strange(NamedTuple):
    """Layers without a common start among several."""

    layers: tuple[str, ...]
    """Modules that own parameters."""

    share: float
    """The larger of the two footprints' shares of the trace, of that of all layers asked about."""


def common_start(table: Derived, a: str, b: str, layer: str | None = None) -> Reading:
    """Say whether two models have a common start, for ``OverlapTable.common_start``.

    Args:
        table: The table.
        a: Name of a footprint.
        b: Name of another.
        layer: A layer; None for all weights.

    Returns:
        The reading.
    """
    whole = table.alignment.reading(a, b)  # which also refuses unknown footprints
    members = _members(table, layer)
    owners = {layer_of(parameter) for parameter in members}
    if layer is not None and len(owners) == 1:
        return table.alignment.reading(a, b, members)
    if strange_layers(table, a, b, layer).share > MOSTLY:
        return "no common start"
    if layer is None:
        return whole
    together = float(table.alignment.within(members)[table.names.index(a), table.names.index(b)])
    return whole if math.isnan(together) else reading_of(together)


def strange_layers(table: Derived, a: str, b: str, layer: str | None = None) -> Strange:
    """Find the layers in which two models have no common start.

    Args:
        table: The table.
        a: Name of a footprint.
        b: Name of another.
        layer: Look in this layer, which may have been merged of several; None for all weights.

    Returns:
        The layers, and how much of the trace they hold.
    """
    members = _members(table, layer)
    owned: dict[str, list[str]] = {}
    for parameter in members:
        owned.setdefault(layer_of(parameter), []).append(parameter)
    layers = [each for each in owned if table.alignment.reading(a, b, owned[each]) == "no common start"]
    shares = [0.0]
    for place in (table.names.index(a), table.names.index(b)):
        held = {owner: math.fsum(table.terms[each][place, place] for each in owned[owner]) for owner in owned}
        if (whole := math.fsum(held.values())) > 0:
            shares.append(math.fsum(held[owner] for owner in layers) / whole)
    return Strange(tuple(layers), max(shares))


def _members(table: Derived, layer: str | None) -> tuple[str, ...]:
    return tuple(table.terms) if layer is None else Named("layer", table.members)[layer]
