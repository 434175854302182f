"""Figures of supermasks and of how alike tasks are: each takes axes and finished data, and returns what it drew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.text import number

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
MOST_NUMBERS = 15
"""Rows or columns beyond which cells are too small for numbers."""

MOST_NAMES = 20
"""Rows or columns beyond which only some are named, evenly spaced, so that names do not cover each other."""

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
    """What a heat map consists of."""

    image: AxesImage
    """One cell per pair; undefined ones are grey."""

    colorbar: Colorbar
    """On axes of its own, to the right."""

    numbers: tuple[Text, ...]
    """The value of each defined cell, row by row; empty where there are too many cells to read them."""


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


def plot_overlap_matrix(table: OverlapTable, ax: Axes, *, layer: str | None = None, decimals: int = 2) -> HeatMap:
    """Draw the overlaps of all pairs, with numbers: pooled, or of one layer."""
    if layer is not None and layer not in table.by_layer:
        raise UsageError(f"no layer {layer!r} in this table; it has {', '.join(table.layers)}")
    values = table.pooled if layer is None else table.by_layer[layer]
    low = -1.0 if table.kind == "activity" else 0.0
    drawn = _heat_map(ax, values, table.names, table.names, (low, 1.0), table.measure.replace("_", " "), decimals)
    ax.set_title("pooled" if layer is None else layer or "whole network")
    return drawn


def plot_corrected_matrix(table: OverlapTable, ax: Axes, *, layer: str | None = None, decimals: int = 2) -> HeatMap:
    """Draw the overlaps of supermasks beyond chance, with numbers: pooled, or of one layer."""
    level = table.corrected
    if layer is not None and layer not in level.by_layer:
        raise UsageError(f"no layer {layer!r} in this table; it has {', '.join(table.layers)}")
    values = level.pooled if layer is None else level.by_layer[layer]
    drawn = _heat_map(
        ax, values, table.names, table.names, (-1.0, 1.0), "jaccard index, corrected for chance", decimals
    )
    ax.set_title("pooled" if layer is None else layer or "whole network")
    return drawn


def plot_similarity(found: TaskSimilarity, ax: Axes, *, layer: str | None = None, decimals: int = 2) -> HeatMap:
    """Draw how alike tasks are at one layer, with numbers; a star marks what is not above its null, and is explained.

    Args:
        found: The similarities.
        ax: Where to draw.
        layer: A batch norm; None for the first.
        decimals: Digits after the point.

    Returns:
        The artists.

    Raises:
        UsageError: If there is no such layer.
    """
    layer = found.layers[0] if layer is None else layer
    if layer not in found.layers:
        raise UsageError(f"no layer {layer!r} among these similarities; there are {', '.join(found.layers)}")
    weak = ~found.beats_null(layer) & ~np.eye(len(found.tasks), dtype=bool)
    words = f"task similarity, {found.approach.replace('_', ' ')}"
    drawn = _heat_map(ax, found.values[layer], found.tasks, found.tasks, (0.0, 1.0), words, decimals, weak)
    if any(each.get_text().endswith(STAR) for each in drawn.numbers):
        drawn.colorbar.set_label(f"{words}\n({STARRED})")
    ax.set_title(layer)
    if found.approach == "probed":
        ax.set_xlabel("through the mask of")
        ax.set_ylabel("data of")
    return drawn


def plot_alphas(alphas: Alphas, ax: Axes, *, decimals: int = 2) -> HeatMap:
    """Draw how much each prior task takes part in the training of a task, layer by layer."""
    priors = list(dict.fromkeys(prior for row in alphas.layers.values() for prior in row))
    if not priors:
        raise UsageError(f"{alphas.task!r} is the first task: there are no alphas to draw")
    values = np.array([[row.get(prior, 0.0) for prior in priors] for row in alphas.layers.values()])
    layers = [layer or "every layer" for layer in alphas.layers]
    drawn = _heat_map(ax, values, layers, priors, (0.0, 1.0), "alpha", decimals)
    ax.set_title(f"Alphas of {alphas.task}")
    ax.set_xlabel("prior task")
    return drawn


def accuracy_map(ax: Axes, values: NDArray[np.float64], *, fontsize: int, aspect: Aspect = "equal") -> AxesImage:
    """Draw accuracies from 0 to 1, with a number in every defined cell."""
    image = ax.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect=aspect)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "w" if value < DARK else "k"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=fontsize, color=color)
    ax.figure.colorbar(image, ax=ax, label="accuracy")
    return image


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
    decimals: int,
    marked: NDArray[np.bool_] | None = None,
) -> HeatMap:
    signed = limits[0] < 0
    image = ax.imshow(values, vmin=limits[0], vmax=limits[1], cmap="RdBu_r" if signed else "Blues", aspect="equal")
    numbers = []
    if max(values.shape) <= MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            star = STAR if marked is not None and marked[i, j] else ""
            dark = abs(value) > DARK * limits[1]
            numbers.append(
                ax.text(
                    j,
                    i,
                    number(value, decimals) + star,
                    ha="center",
                    va="center",
                    fontsize="small",
                    color="w" if dark else "k",
                )
            )
    ax.set_facecolor(UNDEFINED)  # seen where there is no value
    ax.set_xticks(*_some(columns), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(*_some(rows))
    colorbar = _colorbar(ax, image)
    colorbar.set_label(words)
    return HeatMap(image, colorbar, tuple(numbers))


def _some(names: Sequence[str]) -> tuple[range, Sequence[str]]:
    """Places and names of the rows or columns that are named."""
    step = -(-len(names) // MOST_NAMES)
    return range(0, len(names), step), names[::step]


def _colorbar(ax: Axes, image: AxesImage) -> Colorbar:
    return ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04)  # as high as the image
