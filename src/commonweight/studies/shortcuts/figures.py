"""Figures of a study of shortcuts: each takes axes and the finished study."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.fusion.paths import RANDOM
from commonweight.report.files import COLORS, new_figure, open_axes
from commonweight.report.maps import DARK, accuracy_map, colour_bar
from commonweight.studies.shortcuts.report import triangle_accuracy, walk_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from commonweight.base.estimate import Estimate
    from commonweight.studies.shortcuts.results import ShortcutStudy


CELL_COLORS = {
    "shared": "#1b6ca8",
    "unshared": "#c4532b",
    "same input, first": "#d9a441",
    "same input, second": "#8f9a4b",
}

ORIGINAL_COLOR = "0.25"
"""Of the original rows in every walk."""

WIDTHS = (3.0, 2.4, 1.4, 0.8)
"""Of curves in one panel, the later ones on top: one that lies under another is still seen."""

WHISKER_COLOR = "0.2"
GUIDE_COLOR = "0.85"

TOP = 1.14
"""Where overlap axes end if whiskers are cut: above 1 is room for their numbers."""

FEWEST_FOR_WHISKERS = 3
"""Seeds, in the figure of layers; with two, the 95 % interval is so wide that it hides the others."""

APART = 0.18
"""Between the markers of one layer, in layers."""

CORNERS = np.array([[0.5, math.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
"""Places of the three models: the first on top, the second left, the third right."""

COLUMNS = 3
"""Most panels of layers side by side."""


def plot_overlap_bars(study: ShortcutStudy, ax: Axes, *, rule: str = "empirical") -> dict[str, BarContainer]:
    """Draw shared, unshared and same-input overlaps of every pair of models; whiskers are 95 % intervals."""
    # A whisker that leaves the range of overlaps, 0 to 1, ends there in an arrow, and half its width stands beside it:
    # the t-interval of two seeds is 25 times as wide as their standard error.
    cells = study.cells(_known(study, rule), of=study.best_known(rule))
    pairs = list(cells)
    bars = {}
    width = 0.8 / len(CELL_COLORS)
    is_cut = False
    for number, (cell, color) in enumerate(CELL_COLORS.items()):
        means, half = _intervals([cells[pair][cell] for pair in pairs])
        places = np.arange(len(pairs)) + (number - (len(CELL_COLORS) - 1) / 2) * width
        whiskers = np.stack([np.minimum(half, means), np.minimum(half, 1 - means)]).clip(0)
        bars[cell] = ax.bar(
            places,
            means,
            width,
            color=color,
            label=cell,
            yerr=None if np.isnan(half).all() else whiskers,  # a nan draws no whisker
            error_kw={"elinewidth": 1, "ecolor": WHISKER_COLOR},
        )
        for place, mean, length in zip(places, means, half, strict=True):
            is_cut |= _arrows(ax, float(place), float(mean), float(length))
    ax.set_xticks(range(len(pairs)), [" and ".join(pair) for pair in pairs])
    ax.set_ylim(0, TOP if is_cut else 1.02)
    ax.set_yticks(np.linspace(0, 1, 6))
    said = whisker_words(study) or ("\n(whiskers: 95 % over folds)" if study.has_folds(rule) else "")
    ax.set_ylabel(f"{study.best_known(rule)} Fisher overlap, Fisher type {rule}{said}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False, fontsize="small")
    open_axes(ax)
    return bars


def _intervals(found: list[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([each.value for each in found]), np.array([each.half_width() for each in found])


def _arrows(ax: Axes, place: float, mean: float, half: float) -> bool:
    """End a whisker that leaves the range of overlaps in arrows, with its length above; tell whether it does."""
    ends = [(1.0, "^")] * (mean + half > 1) + [(0.0, "v")] * (mean - half < 0)
    for height, marker in ends:
        ax.plot(place, height, marker, color=WHISKER_COLOR, markersize=4, clip_on=False, gid="cut whisker")
    if ends:
        ax.text(place, 1.03, f"±{half:.2f}", rotation=90, ha="center", va="bottom", fontsize=6, color=WHISKER_COLOR)
    return bool(ends)


def plot_layer_curves(
    study: ShortcutStudy, ax: Axes, *, pair: tuple[str, str] | None = None, rule: str = "empirical", panel: bool = False
) -> dict[str, Line2D]:
    """Draw the overlaps of one pair of models layer by layer, in the order of the model."""
    # Whiskers are 95 % intervals over seeds; with fewer than three seeds there are none. Layers are not joined: a layer
    # is next to another, but nothing lies between them.
    by_layer = {layer: study.cells(_known(study, rule), layer, study.best_known(rule)) for layer in study.layers}
    pairs = list(next(iter(by_layer.values())))
    pair = pair or pairs[0]
    if pair not in pairs:
        raise UsageError(f"no pair {pair}; there are {', '.join(map(str, pairs))}")
    places = np.arange(len(by_layer))
    lines = {}
    ax.hlines(places, 0, 1, color=GUIDE_COLOR, linewidth=0.5, zorder=0)
    for number, (cell, color) in enumerate(CELL_COLORS.items()):
        means, half = _intervals([cells[pair][cell] for cells in by_layer.values()])
        beside = places + (number - (len(CELL_COLORS) - 1) / 2) * APART  # so that no marker hides another
        (lines[cell],) = ax.plot(means, beside, "o", markersize=3.5, color=color, label=cell)
        if len(study.scores) >= FEWEST_FOR_WHISKERS:
            ends = np.clip(means - half, 0, 1), np.clip(means + half, 0, 1)
            ax.hlines(beside, *ends, color=color, alpha=0.5, linewidth=1, gid="whiskers")
    ax.set_yticks(places, [layer or "whole network" for layer in by_layer])
    ax.set_ylim(len(by_layer) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    if panel:
        ax.set_xlabel(f"{pair[0]} and {pair[1]}")
    else:
        ax.set_xlabel(layers_label(study, rule, f" of {pair[0]} and {pair[1]}"))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize="small")
    open_axes(ax)
    return lines


def plot_walk(
    study: ShortcutStudy, ax: Axes, *, start: str, end: str, as_far_as: str | None = None
) -> dict[str, Line2D]:
    """Draw accuracies along a walk through weight space, means over seeds."""
    points, accuracy = walk_accuracy(study, start, end, as_far_as)
    colors = dict(zip(study.plan.shortcuts, COLORS, strict=False))
    lines = {}
    for place, (name, values) in enumerate(accuracy.items()):
        is_original = name not in colors
        color, style, thick = (ORIGINAL_COLOR, "--", WIDTHS[2]) if is_original else (colors[name], "-", WIDTHS[place])
        (lines[name],) = ax.plot(
            points, values, style, color=color, marker="o", markersize=thick + 2, linewidth=thick, label=name
        )
        if is_original:
            lines[name].set_zorder(lines[name].get_zorder() + 1)  # thin and dashed: on top it hides nothing
    way = end
    if end == RANDOM:
        way = f"a random direction, as far as to {as_far_as}" if as_far_as else "a random direction"
    ax.set_xlabel(f"from {start} (0) to {way} (1)")
    ax.set_ylabel("accuracy")
    ax.set_ylim(0, 1.02)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(lines), frameon=False, fontsize="small")
    open_axes(ax)
    return lines


def plot_accuracies(study: ShortcutStudy, ax: Axes) -> AxesImage:
    """Draw the accuracy of every model on every set, means over seeds."""
    models, sets = list(study.scores[0]), list(study.constants[0])
    values = np.array([[study.accuracy(model, data).value for data in sets] for model in models])
    drawn = accuracy_map(ax, values, fontsize=6, aspect="auto")
    colour_bar(drawn, [ax])
    ax.set_xticks(range(len(sets)), sets, rotation=45, ha="right")
    ax.set_yticks(range(len(models)), models)
    return drawn.image


def whisker_words(study: ShortcutStudy, fewest: int = 2) -> str:
    """Say on an axis what the whiskers are."""
    seeds = len(study.scores)
    return f"\n(whiskers: 95 % over {seeds} seeds)" if seeds >= fewest else ""


def layers_label(study: ShortcutStudy, rule: str, models: str = "") -> str:
    """Label the axis of overlaps layer by layer."""
    said = whisker_words(study, FEWEST_FOR_WHISKERS)
    return f"{study.best_known(rule)} Fisher overlap{models}, normalised per layer, Fisher type {rule}{said}"


def _known(study: ShortcutStudy, rule: str) -> str:
    if rule not in study.tables:
        raise UsageError(f"the study has no Fisher type {rule!r}; it has {', '.join(study.tables)}")
    return rule


def plot_triangle(study: ShortcutStudy, ax: Axes, *, data: str = "original") -> PolyCollection:
    """Draw the accuracy of averages of the first three models, all over their triangle; means over seeds."""
    from matplotlib.collections import PolyCollection

    points, accuracy = triangle_accuracy(study)
    if data not in accuracy:
        raise UsageError(f"the triangle has no set {data!r}; it has {', '.join(accuracy)}")
    values = np.array(accuracy[data])
    places = np.array(points) @ CORNERS
    step = min(weight for point in points for weight in point if weight > 0)
    turns = np.arange(6) * math.pi / 3 + math.pi / 6
    cell = np.stack([np.cos(turns), np.sin(turns)], axis=1) * step / math.sqrt(3)
    cells = PolyCollection([place + cell for place in places], cmap="viridis", edgecolors="w", linewidths=0.8)
    cells.set_array(values)
    cells.set_clim(0, 1)
    ax.add_collection(cells)
    for place, value in zip(places, values, strict=True):
        color = "w" if value < DARK else "k"
        ax.text(place[0], place[1], f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    for name, (x, y), where in zip(study.triangles[0]["corners"], CORNERS, ((0, 1), (-1, -1), (1, -1)), strict=True):
        ax.text(x + 0.06 * where[0], y + 0.13 * where[1], name, ha="center", va="center", fontsize=9)
    ax.set_xlim(-0.16, 1.16)
    ax.set_ylim(-0.2, 1.06)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(f"{data} rows", fontsize="medium")
    return cells


def figures_of(study: ShortcutStudy) -> Iterator[tuple[str, Figure]]:
    """Draw every figure of a study, each with its name."""
    pairs = list(combinations(study.plan.shortcuts, 2))
    for rule in study.tables:
        figure = new_figure(max(6.0, 1.8 * len(pairs)), 4)
        plot_overlap_bars(study, figure.subplots(), rule=rule)
        yield f"overlaps-{rule}", figure
        columns = min(COLUMNS, len(pairs))
        rows = -(-len(pairs) // columns)
        figure = new_figure(4.0 * columns + 1.5, rows * (0.25 * len(study.layers) + 0.8) + 1)
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax, pair in zip(axes, pairs, strict=False):
            lines = plot_layer_curves(study, ax, pair=pair, rule=rule, panel=True)
        for ax in axes[len(pairs) :]:
            ax.set_axis_off()
        figure.supxlabel(layers_label(study, rule), fontsize="medium")
        figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=4, frameon=False, fontsize="small")
        yield f"layers-{rule}", figure
    figure = new_figure(13, 3.4 * len(pairs))
    axes = figure.subplots(len(pairs), 3, sharey=True, squeeze=False)
    for (there, from_a, from_b), (a, b) in zip(axes, pairs, strict=True):
        plot_walk(study, there, start=a, end=b)
        plot_walk(study, from_a, start=a, end=RANDOM, as_far_as=b)
        plot_walk(study, from_b, start=b, end=RANDOM, as_far_as=a)
        for ax in (from_a, from_b):
            ax.set_ylabel("")
    yield "walks", figure
    if study.triangles:
        sets = list(study.triangles[0]["accuracy"])
        figure = new_figure(2.7 * len(sets) + 0.8, 2.9)
        axes = figure.subplots(1, len(sets))
        for ax, data in zip(axes, sets, strict=True):
            cells = plot_triangle(study, ax, data=data)
        figure.colorbar(cells, ax=axes, label="accuracy (cells: percent)", shrink=0.8)
        yield "triangle", figure
    figure = new_figure(1.0 * len(study.constants[0]) + 3, 0.4 * len(study.scores[0]) + 2)
    plot_accuracies(study, figure.subplots())
    yield "accuracies", figure
