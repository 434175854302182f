"""Figures of supermasks and of how alike tasks are: each takes axes and finished data, and returns what it drew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.text import number
from commonweight.footprints.footprint import IMPORTANCES, SIGNED
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.verdicts.rules import ABOVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage
    from matplotlib.text import Text
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from commonweight.overlaps.similarity.means import TaskSimilarity
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.transfer.alphas import Alphas

Aspect = Literal["equal", "auto"]
MOST_NUMBERS = 8
"""Rows or columns beyond which cells are too small for numbers."""

FONT = 50
"""Points of all the numbers of a column of cells together."""

MOST_NAMES = 20
"""Rows or columns beyond which only some are named, evenly spaced, so that names do not cover each other."""

DECIMALS = 2
"""Of the numbers."""

UNDEFINED = "0.8"
"""The grey of cells without a value: white would pass for 0."""

STAR = "*"
STARRED = f"{STAR} not above its null"

DARK = 0.6
"""Share of the colour scale from which numbers are written in white."""


@dataclass(frozen=True)
class MaskImage:
    """What :func:`plot_supermask` drew."""

    image: AxesImage
    """The bits, black where the weight is kept."""

    colorbar: Colorbar
    """On axes of its own, to the right."""


@dataclass(frozen=True)
class HeatMap:
    """What a heat map consists of; its colour bar is drawn by :func:`colour_bar`, one for all that share a scale."""

    image: AxesImage
    """One cell per pair; undefined ones are grey."""

    words: str
    """What the colours stand for."""

    numbers: tuple[Text, ...]
    """The value of each defined cell, row by row; of many cells only the stars."""


def plot_supermask(
    ax: Axes,
    mask: ArrayLike | Tensor,
    task: object,
    *,
    title: str = "Neural Activity for Task {task}",
    xlabel: str = "Neuron Index",
    ylabel: str = "Neuron Index",
) -> MaskImage:
    """Draw the mask of one layer: reverse grey, so that kept weights are black.

    A row is a unit, a column an input of the layer. The axes come first, and the words are those of the notebook that
    this comes from, though weights are drawn and not activity. Nothing is written to a file.

    Args:
        ax: Where to draw.
        mask: Bits, ``[units, inputs]`` or more dimensions, of which all but the first are joined.
        task: Named in the title.
        title: ``{task}`` stands for the task.
        xlabel: Below.
        ylabel: At the left.

    Returns:
        The image and its colour bar.

    Raises:
        UsageError: If the mask has fewer than two dimensions, or holds something other than bits.

    Example:
        >>> from matplotlib.figure import Figure
        >>> drawn = plot_supermask(Figure().subplots(), [[1, 0], [0, 1]], "a")
        >>> drawn.image.get_array().astype(int).tolist()
        [[1, 0], [0, 1]]
    """
    from matplotlib.ticker import MaxNLocator

    bits = _bits(mask)
    image = ax.imshow(bits, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title.replace("{task}", str(task)))
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        locator = axis.get_major_locator()
        if isinstance(locator, MaxNLocator):
            locator.set_params(integer=True)  # neurons are counted
    colorbar = _colorbar(ax, image)
    colorbar.set_ticks([0, 1])
    return MaskImage(image, colorbar)


def plot_overlap_matrix(table: OverlapTable, ax: Axes, *, layer: str | None = None) -> HeatMap:
    """Draw the overlaps of all pairs, pooled or of one layer: corrected for noise, or of masks for chance, if known."""
    if layer is not None and layer not in table.by_layer:
        raise UsageError(f"no layer {layer!r} in this table; it has {', '.join(table.layers)}")
    apart = ~np.eye(len(table.names), dtype=bool)
    beyond = table.kind == "supermask" and bool(np.isfinite(table.corrected.pooled[apart]).all())
    values = table.corrected if beyond else table
    shown = values.pooled if layer is None else values.by_layer[layer]
    words = MEASURES[table.kind].words
    if beyond:
        everything = np.stack([values.pooled, *values.by_layer.values()])
        highest = float(np.nanmax(np.abs(everything), initial=0.0)) or 1.0
        drawn = _heat_map(ax, shown, table.names, table.names, (-highest, highest), f"{words} beyond chance")
    else:
        low = -1.0 if table.kind in SIGNED else 0.0
        weak = None
        if table.kind in IMPORTANCES and table.resampled is not None:
            values = table.corrected
            shown = values.pooled if layer is None else values.by_layer[layer]
            weak = _not_above(table, layer)
            words = f"{words}, corrected\n({STARRED})"
        drawn = _heat_map(ax, shown, table.names, table.names, (low, 1.0), words, marked=weak)
    ax.set_title("pooled" if layer is None else layer or "whole network")
    return drawn


def _not_above(table: OverlapTable, layer: str | None) -> NDArray[np.bool_]:
    """Find the pairs that are not above their null."""
    weak = np.zeros((len(table.names), len(table.names)), dtype=bool)
    for (i, a), (j, b) in combinations(enumerate(table.names), 2):
        weak[i, j] = weak[j, i] = table.verdict((a, b), layer=layer).answer != ABOVE
    return weak


def plot_similarity(found: TaskSimilarity, ax: Axes, *, layer: str | None = None) -> HeatMap:
    """Draw how alike tasks are at one layer, the first unless another is named; a star marks what its null reaches."""
    # Probed similarities are all near 1, and have a scale and colours of their own, the same for all layers.
    layer = found.layers[0] if layer is None else layer
    if layer not in found.layers:
        raise UsageError(f"no layer {layer!r} among these similarities; there are {', '.join(found.layers)}")
    weak = ~found.beats_null(layer) & ~np.eye(len(found.tasks), dtype=bool)
    probed = found.approach == "probed"
    limits, colours = ((_rounded_down(found), 1.0), "Greens") if probed else ((0.0, 1.0), "Blues")
    words = f"task similarity, {found.approach.replace('_', ' ')}\n({STARRED})"
    drawn = _heat_map(ax, found.values[layer], found.tasks, found.tasks, limits, words, marked=weak, colours=colours)
    ax.set_title(layer)
    if probed:
        ax.set_xlabel("through the mask of")
        ax.set_ylabel("data of")
    return drawn


def plot_alphas(alphas: Sequence[Alphas | None], tasks: Sequence[str], ax: Axes) -> HeatMap:
    """Draw how much each prior task (columns) takes part in the training of each task (rows), mean over layers."""
    values = np.full((len(tasks), len(tasks)), np.nan)
    for chosen in alphas:
        if chosen is not None:
            row = tasks.index(chosen.task)
            values[row, :row] = [
                np.mean([layer.get(prior, 0.0) for layer in chosen.layers.values()]) for prior in tasks[:row]
            ]
    drawn = _heat_map(ax, values, tasks, tasks, (0.0, 1.0), "alpha, mean over layers", colours="Purples")
    ax.set_xlabel("prior task")
    ax.set_ylabel("while training")
    return drawn


def colour_bar(drawn: HeatMap, axes: Sequence[Axes]) -> Colorbar:
    """Draw one colour bar beside all heat maps of a scale."""
    bar: Colorbar = drawn.image.figure.colorbar(drawn.image, ax=axes, fraction=0.05, pad=0.01, label=drawn.words)
    return bar


def accuracy_map(ax: Axes, values: NDArray[np.float64], *, fontsize: int, aspect: Aspect = "equal") -> HeatMap:
    """Draw accuracies from 0 to 1, with a number in every defined cell."""
    image = ax.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect=aspect)
    numbers = tuple(
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=fontsize, color="w" if value < DARK else "k")
        for (i, j), value in np.ndenumerate(values)
        if not np.isnan(value)
    )
    return HeatMap(image, "accuracy", numbers)


def _bits(mask: ArrayLike | Tensor) -> NDArray[np.bool_]:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu()
        mask = mask.float() if mask.is_floating_point() else mask  # NumPy has no bfloat16
    array = np.asarray(mask)
    if array.ndim < 2:
        raise UsageError(f"expected a mask of at least two dimensions, got shape {list(array.shape)}; reshape it")
    if not ((array == 0) | (array == 1)).all():
        raise UsageError("expected a mask of 0 and 1; pass the bits, not the scores")
    return array.reshape(len(array), -1).astype(bool)


def _heat_map(
    ax: Axes,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    words: str,
    *,
    marked: NDArray[np.bool_] | None = None,
    colours: str = "Blues",
) -> HeatMap:
    low, high = limits
    image = ax.imshow(values, vmin=low, vmax=high, cmap="RdBu_r" if low < 0 else colours, aspect="equal")
    numbers = []
    most, size = max(values.shape), min(8.0, FONT / max(values.shape))
    for (i, j), value in np.ndenumerate(values):
        star = STAR if marked is not None and marked[i, j] and most <= MOST_NAMES else ""
        shown = (number(value, DECIMALS) if most <= MOST_NUMBERS else "") + star
        if shown and not np.isnan(value):
            dark = (abs(value) / high if low < 0 else (value - low) / (high - low)) > DARK
            color = "w" if dark else "k"
            numbers.append(ax.text(j, i, shown, ha="center", va="center", fontsize=size, color=color))
    ax.set_facecolor(UNDEFINED)  # seen where there is no value
    ax.set_xticks(*some(columns), rotation=45, ha="right", rotation_mode="anchor", fontsize="small")
    ax.set_yticks(*some(rows), fontsize="small")
    return HeatMap(image, words, tuple(numbers))


def _rounded_down(found: TaskSimilarity) -> float:
    """The twentieth below the smallest similarity of all layers; at most .95, so that there is a scale."""
    values = np.stack(list(found.values.values()))
    return min(0.95, math.floor(20 * float(np.nanmin(values, initial=1.0))) / 20)


def some(names: Sequence[str]) -> tuple[range, Sequence[str]]:
    """Choose the rows or columns that are named: their places and names."""
    step = -(-len(names) // MOST_NAMES)
    return range(0, len(names), step), names[::step]


def _colorbar(ax: Axes, image: AxesImage) -> Colorbar:
    return ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04)  # as high as the image
