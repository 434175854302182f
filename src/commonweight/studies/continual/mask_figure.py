"""The picture of masks: the bits of one, as the notebook shows them, and what is not chance in all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from commonweight.report import maps
from commonweight.report.files import COLORS, new_figure, open_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Footprint

    Bits = Mapping[str, NDArray[np.bool_]]

BAND = 1.96
"""Standard deviations to either side of chance that hold 95 % of what independent bits give."""


def mask_figures(masks: Mapping[str, Footprint]) -> Iterator[tuple[str, Figure]]:
    """Draw the masks of one layer: the last layer but one, or the only one."""
    first = next(iter(masks.values()))
    layer = first.names[-2:][0]
    what = "flipped bits of the mask" if first.metadata.get("flipped") else "mask"
    bits = {task: mask[layer].flatten(1).numpy() for task, mask in masks.items()}
    figure = new_figure(12.0, 4.2)
    left, middle, right = figure.subplots(1, 3)
    task, mask = next(iter(bits.items()))
    maps.plot_supermask(left, mask, task, title="task {task}", xlabel="input", ylabel="unit")
    left.set_aspect("auto")  # as high as the colour bar
    plot_density(bits, middle)
    plot_sharing(bits, right)
    figure.suptitle(f"{what} of {layer}, seed 0", fontsize="medium")
    yield "masks", figure


def plot_density(bits: Bits, ax: Axes) -> Mapping[str, Line2D]:
    """Draw the share of inputs that each unit keeps, units from the sparsest to the densest, a line per task."""
    # The band holds 95 % of units whose bits are drawn independently with the density of the masks.
    lines = {
        task: ax.plot(np.sort(mask.mean(axis=1)), color=COLORS[0], alpha=0.5, linewidth=1)[0]
        for task, mask in bits.items()
    }
    first = next(iter(bits.values()))
    density = float(np.mean([mask.mean() for mask in bits.values()]))
    half = BAND * math.sqrt(density * (1 - density) / first.shape[1])
    ax.axhspan(density - half, density + half, color="0.9", zorder=0, label="95 % of units by chance")
    next(iter(lines.values())).set_label("a task")
    ax.set_xlabel("unit, from the sparsest to the densest")
    ax.set_ylabel("share of its inputs")
    ax.set_title("density per unit", fontsize="medium")
    ax.legend(frameon=False, fontsize="x-small", loc="upper left")
    open_axes(ax)
    return lines


def plot_sharing(bits: Bits, ax: Axes) -> BarContainer:
    """Draw how many weights are kept by no task, by one, by two, …, less what independent masks would give."""
    count = np.sum(list(bits.values()), axis=0)
    n = count.size
    found = np.bincount(count.reshape(-1), minlength=len(bits) + 1) / n
    chance = by_chance([float(mask.mean()) for mask in bits.values()])
    half = BAND * np.sqrt(chance * (1 - chance) / n)
    places = np.arange(len(found))
    ax.fill_between(places, -half, half, step="mid", color="0.9", label="95 % by chance")
    bars = ax.bar(places, found - chance, color=COLORS[0], width=0.6, label="found − chance")
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(places)
    ax.set_xlabel("tasks that keep a weight")
    ax.set_ylabel("share of weights, less that by chance")
    ax.set_title("shared by tasks", fontsize="medium")
    ax.legend(frameon=False, fontsize="x-small")
    open_axes(ax)
    return bars


def by_chance(densities: Sequence[float]) -> NDArray[np.float64]:
    """Give the distribution of how many of several independent masks keep a weight."""
    shares = np.ones(1)
    for density in densities:
        shares = np.convolve(shares, [1 - density, density])
    return shares
