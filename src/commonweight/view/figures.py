"""Figures for papers: each takes axes and finished data, and returns what it drew. Needs ``commonweight[plot]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer
    from matplotlib.lines import Line2D

    from commonweight.overlaps.table import OverlapTable


@dataclass(frozen=True)
class LayerOverlap:
    """What :func:`plot_layer_overlap` drew."""

    overlaps: PathCollection
    """One dot per layer where the overlap is defined."""

    pooled: Line2D
    """The pooled overlap, across all layers."""

    shares: BarContainer
    """Bars of the smaller trace share of the two footprints."""


def plot_layer_overlap(table: OverlapTable, ax: Axes, *, pair: tuple[str, str] | None = None) -> LayerOverlap:
    """Draw the overlap of two footprints layer by layer, in the order of the model, with the trace share behind it.

    Args:
        table: The table; roll it up first to draw fewer layers.
        ax: Where to draw.
        pair: Two names of the table; None takes its only two.

    Returns:
        The artists.

    Raises:
        UsageError: If no pair is named and the table has more than two footprints.
    """
    if pair is None:
        if len(table.names) != 2:
            raise UsageError(f"the table has {len(table.names)} footprints: name a pair of {', '.join(table.names)}")
        pair = (table.names[0], table.names[1])
    i, j = (table.names.index(name) for name in pair)
    layers = list(table.layers)
    places = np.arange(len(layers))
    overlaps = np.array([table.by_layer[layer][i, j] for layer in layers])
    shares = np.array([min(table.trace_share[layer][i], table.trace_share[layer][j]) for layer in layers])
    defined = ~np.isnan(overlaps)
    bars = ax.barh(places, shares, color="0.85", height=0.8, label="trace share (the smaller of the two)")
    dots = ax.scatter(overlaps[defined], places[defined], color="#1b6ca8", zorder=3, label="overlap")
    line = ax.axvline(float(table.pooled[i, j]), color="#c4532b", linewidth=1.2, label="pooled overlap")
    ax.set_yticks(places, [layer or "whole network" for layer in layers])
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    ax.set_xlabel(f"{table.measure.replace('_', ' ')} of {pair[0]} and {pair[1]}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize="small")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return LayerOverlap(dots, line, bars)
