"""Figures for papers: each takes axes and finished data, and returns what it drew. Needs ``commonweight[plot]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.report.files import open_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.container import BarContainer
    from matplotlib.lines import Line2D

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.table.table import OverlapTable


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
    """Draw the overlap of two footprints layer by layer, in the order of the model, with the trace share behind it."""
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
    open_axes(ax)
    return LayerOverlap(dots, line, bars)


BAND = 0.15
"""Opacity of a 95 % interval."""


FEWEST_FOR_BANDS = 3
"""Folds or seeds; with two the interval is so wide that it hides the curves."""


@dataclass(frozen=True)
class DepthCurve:
    """What one pair of footprints has in common, layer by layer."""

    name: str
    """For the legend."""

    estimates: Mapping[str, Estimate]
    """Layer -> overlap, or whatever else is drawn; in the order of the model."""

    color: str = "#1b6ca8"
    style: str = "-"
    """Of the line, as Matplotlib writes it."""

    null: Mapping[str, float] | None = None
    """Layer -> what the value would be without anything shared; None draws none."""


@dataclass(frozen=True)
class DepthLines:
    """What :func:`plot_depth` drew; by the curve's name."""

    lines: Mapping[str, Line2D]
    bands: Mapping[str, PolyCollection]
    """95 % intervals, of curves that have one in some layer."""

    nulls: Mapping[str, Line2D]
    """Dotted, of curves that have one."""


def plot_depth(curves: Sequence[DepthCurve], ax: Axes) -> DepthLines:
    """Draw curves against depth."""
    # A layer where a curve is undefined is a gap in it. Bands are 95 % intervals, from three folds or seeds on; dotted
    # lines are what a curve would be without anything shared.
    layers = _layers(curves)
    places = np.arange(len(layers))
    lines, bands, nulls = {}, {}, {}
    for curve in curves:
        found = list(curve.estimates.values())
        (lines[curve.name],) = ax.plot(
            places, [each.value for each in found], curve.style, color=curve.color, marker="o", markersize=3,
            linewidth=1.3, label=curve.name,
        )  # fmt: skip
        low, high = np.array([each.low for each in found]), np.array([each.high for each in found])
        if not np.isnan(low).all() and min(each.count for each in found) >= FEWEST_FOR_BANDS:
            bands[curve.name] = ax.fill_between(places, low, high, color=curve.color, alpha=BAND, linewidth=0)
        if curve.null is not None:
            heights = [curve.null[layer] for layer in layers]
            (nulls[curve.name],) = ax.plot(places, heights, ":", color=curve.color, linewidth=1)
    ax.set_xticks(places, layers)
    ax.set_xlim(-0.3, len(layers) - 0.7)
    open_axes(ax)
    return DepthLines(lines, bands, nulls)


def _layers(curves: Sequence[DepthCurve]) -> list[str]:
    if not curves:
        raise UsageError("expected at least one curve, got none")
    names = [curve.name for curve in curves]
    if len(set(names)) < len(names):
        raise UsageError(f"every curve needs a name of its own, got {', '.join(names)}")
    layers = list(curves[0].estimates)
    for curve in curves[1:]:
        if list(curve.estimates) != layers:
            raise UsageError(
                f"curves of one panel need the same layers: {curve.name!r} has {', '.join(curve.estimates)}, and "
                f"{curves[0].name!r} {', '.join(layers)}"
            )
    return layers
