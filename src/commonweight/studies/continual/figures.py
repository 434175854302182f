"""Figures of a study of continual learning: each takes axes and the finished study."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.report import maps
from commonweight.report.curves import DepthCurve, plot_depth
from commonweight.report.files import COLORS, new_figure, open_axes
from commonweight.studies.continual.report import mean_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from commonweight.report.curves import DepthLines
    from commonweight.report.maps import HeatMap
    from commonweight.studies.continual.results import ApproachRun, ContinualStudy

    Draw = Callable[[Axes], HeatMap]

DepthOf = Literal["masks", "every_layer", "probed"]

DEPTH: Mapping[DepthOf, str] = {
    "masks": "Jaccard index of the masks",
    "every_layer": "task similarity, every layer",
    "probed": "task similarity, probed",
}

MOST_LAYERS = 3
"""Layers that all get a heat map; a deeper network has curves against depth, and heat maps of three layers."""

MOST_COLUMNS = 4
WIDEST = 12.0
"""Inches of the widest figure."""

MOST_INCHES = 4.0
"""Inches of the largest panel."""

BAR = 0.9
"""Inches for the colour bar of a figure."""

TITLE = 0.4
"""Inches for the title of a figure."""

THIN = 1.2
"""Width of a learning curve that lies over all others."""

WIDER = 1.8
"""How much wider it is for each later one that lies on it."""

SAME = 0.002
"""Accuracies no farther apart than this look the same."""

FEWEST_TICKS = 3


def plot_learning_curves(study: ContinualStudy, ax: Axes) -> dict[str, Line2D]:
    """Draw the mean error of every approach while a task is learned, over all tasks but the first and over seeds."""
    # The error is on a logarithmic scale, where a gain late in training is as easy to see as one at its start. A line
    # that later ones lie on is wider than they, and still seen.
    _check_later_tasks(study)
    from matplotlib.ticker import MaxNLocator

    lines = {}
    highest = 0.0
    curves = {name: mean_curve(study, name) for name in study.runs}
    for number, (name, curve) in enumerate(curves.items()):
        thick = THIN + WIDER * sum(_coincide(curve, other) for other in list(curves.values())[number + 1 :])
        error = [1 - accuracy for accuracy in curve.values()]
        highest = max(highest, *error)
        style = "-" if number < len(COLORS) else "--"
        (lines[name],) = ax.plot(
            list(curve), error, style, color=COLORS[number % len(COLORS)], marker="o", markersize=thick + 2,
            linewidth=thick, label=name,
        )  # fmt: skip
    if highest > 0:
        ax.set_yscale("log")
        limits = ax.get_ylim()
        ticks = _round_ticks(*limits)
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_yticks([], minor=True)
        ax.set_ylim(limits)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("optimiser steps on the task")
    ax.set_ylabel("1 − accuracy, mean over all tasks but the first, and seeds")
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    open_axes(ax)
    return lines


def plot_gains(study: ContinualStudy, ax: Axes, *, reference: str = "classic") -> ErrorbarContainer:
    """Draw the area gain of every approach over a reference; whiskers are 95 % intervals over seeds."""
    _check_later_tasks(study)
    names = [name for name in study.runs if name != reference]
    if not names:
        raise UsageError(f"a gain needs another approach beside {reference!r}; the study has none")
    gains = [study.gain(name, reference) for name in names]
    places = np.arange(len(names))
    half = np.nan_to_num([gain.half_width() for gain in gains])
    drawn = ax.errorbar([gain.value for gain in gains], places, xerr=half, fmt="o", color=COLORS[0], capsize=2)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(f"part of the missing area won over {reference}")
    open_axes(ax)
    return drawn


def plot_accuracy_matrix(study: ContinualStudy, ax: Axes, *, approach: str) -> HeatMap:
    """Draw the accuracy matrix of an approach, mean over seeds."""
    if approach not in study.runs:
        raise UsageError(f"the study has no approach {approach!r}; it has {', '.join(study.runs)}")
    R = np.mean([run.R for run in study.runs[approach]], axis=0)
    drawn = maps.accuracy_map(ax, R, fontsize=7)
    ax.set_xticks(range(len(R)))
    ax.set_yticks(range(len(R)))
    ax.set_xlabel("accuracy on task")
    ax.set_ylabel("after learning task")
    ax.set_title(approach, fontsize="medium")
    return drawn


def plot_depth_of(study: ContinualStudy, ax: Axes, what: DepthOf) -> DepthLines:
    """Draw overlaps of masks or a similarity against depth, a curve per approach: means over pairs of tasks."""
    # Bands are 95 % intervals over seeds, from three on; dotted is chance, or the null of shuffled units.
    curves = []
    for number, (name, runs) in enumerate(study.runs.items()):
        pairs = [_over_pairs(run, what) for run in runs]
        estimates = {layer: Estimate.over_seeds([values[layer] for values, _ in pairs]) for layer in pairs[0][0]}
        null = {layer: float(np.mean([nulls[layer] for _, nulls in pairs])) for layer in estimates}
        color, style = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
        curves.append(DepthCurve(name, estimates, color, style, null))
    drawn = plot_depth(curves, ax)
    layers = list(curves[0].estimates)
    ax.set_xticks(*maps.some(layers), rotation=90, fontsize="small")
    ax.set_ylabel(DEPTH[what])
    return drawn


def _coincide(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    return all(abs(accuracy - other[step]) <= SAME for step, accuracy in one.items() if step in other)


def _round_ticks(low: float, high: float) -> list[float]:
    """Choose at least three ticks of a logarithmic axis: powers of ten, else the roundest numbers that are enough."""
    from matplotlib.ticker import MaxNLocator

    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    scales = [np.outer(powers, digits).ravel().tolist() for digits in ((1,), (1, 2, 5), (1, 2, 3, 5, 7))]
    scales += [
        list(MaxNLocator(parts, steps=[1, 2, 5, 10]).tick_values(low, high))
        for parts in range(FEWEST_TICKS + 1, 4 * FEWEST_TICKS)
    ]
    for scale in scales:
        rounded = [float(f"{tick:g}") for tick in scale]
        ticks = [tick for tick in rounded if low <= tick <= high]
        if len(ticks) >= FEWEST_TICKS:
            break
    return ticks


def _check_later_tasks(study: ContinualStudy) -> None:
    if study.plan.tasks < 2:
        raise UsageError("learning curves are averaged over all tasks but the first; the study has one task")


def figures_of(study: ContinualStudy) -> Iterator[tuple[str, Figure]]:
    """Draw every figure of a study, each with its name; those of single networks from seed 0."""
    names, tasks = list(study.runs), study.plan.tasks
    over = "seed 0" if study.plan.seeds == 1 else f"mean over {study.plan.seeds} seeds"
    accuracies = [partial(plot_accuracy_matrix, study, approach=name) for name in names]
    yield from _panels("accuracy", tasks, _in_rows(accuracies), f"Accuracies, {over}")
    if tasks == 1:
        return
    figure = new_figure(7.0, 4.5)
    plot_learning_curves(study, figure.subplots())
    yield "curves", figure
    if "classic" in study.runs and len(names) > 1:
        figure = new_figure(7.0, 1.0 + 0.35 * len(names))
        plot_gains(study, figure.subplots())
        yield "gains", figure
    yield from _depth(study)
    firsts = {name: runs[0] for name, runs in study.runs.items()}
    alphas = [
        partial(_titled, partial(maps.plot_alphas, run.alphas, study.tasks[0]), name)
        for name, run in firsts.items()
        if any(run.alphas)
    ]
    yield from _panels("alphas", tasks, _in_rows(alphas), "Alphas, seed 0")
    for name, run in firsts.items():
        yield from _network_figures(run, name, tasks)


def _network_figures(run: ApproachRun, name: str, tasks: int) -> Iterator[tuple[str, Figure]]:
    overlaps = [
        partial(maps.plot_overlap_matrix, table, layer=layer)
        for table in [run.overlap]
        if table is not None
        for layer in (*_shown(table.layers), None)
    ]
    similarities = [
        [partial(maps.plot_similarity, found, layer=layer) for layer in _shown(found.layers)]
        for kind, found in run.similarity.items()
        if kind != "first_layer"  # the first panel of every_layer
    ]
    yield from _panels(f"overlap-{name}", tasks, [overlaps], f"{name}, seed 0")
    yield from _panels(f"similarity-{name}", tasks, similarities, f"{name}, seed 0")


def _depth(study: ContinualStudy) -> Iterator[tuple[str, Figure]]:
    """One panel of depth curves for masks and for each similarity; none where heat maps show every layer."""
    run = next(iter(study.runs.values()))[0]
    if run.overlap is None or len(run.overlap.layers) <= MOST_LAYERS:
        return
    kinds: list[DepthOf] = ["masks", *(kind for kind in DEPTH if kind in run.similarity)]
    figure = new_figure(WIDEST, 4.5)
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        plot_depth_of(study, ax, kind)
    axes[0].legend(frameon=False, fontsize="small")
    seeds = "seed 0" if study.plan.seeds == 1 else f"{study.plan.seeds} seeds"
    title = f"Mean over pairs of tasks, {seeds}; dotted: chance, or the null of shuffled units"
    figure.suptitle(title, fontsize="medium")
    yield "depth", figure


def _over_pairs(run: ApproachRun, what: DepthOf) -> tuple[dict[str, float], dict[str, float]]:
    """Per layer the mean over pairs of tasks, and that of its null."""
    if what != "masks":
        found, null = run.similarity[what].values, run.similarity[what].null
    elif run.overlap is not None:
        found, null = run.overlap.by_layer, run.overlap.chance.by_layer

    def means(matrices: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        return {layer: float(np.mean(values[~np.eye(len(values), dtype=bool)])) for layer, values in matrices.items()}

    return means(found), means(null)


def _shown(layers: Sequence[str]) -> Sequence[str]:
    """The layers that get heat maps: all of a few; of many the first, the one in the middle and the last."""
    return layers if len(layers) <= MOST_LAYERS else (layers[0], layers[len(layers) // 2], layers[-1])


def _in_rows(panels: Sequence[Draw]) -> list[Sequence[Draw]]:
    return [panels[start : start + MOST_COLUMNS] for start in range(0, len(panels), MOST_COLUMNS)]


def _titled(draw: Draw, title: str, ax: Axes) -> HeatMap:
    drawn = draw(ax)
    ax.set_title(title, fontsize="medium")
    return drawn


def _panels(name: str, tasks: int, rows: Sequence[Sequence[Draw]], title: str) -> Iterator[tuple[str, Figure]]:
    """One figure of heat maps with a colour bar for each row; none without rows."""
    if not rows:
        return
    columns = max(map(len, rows))
    side = min(1.4 + 0.4 * tasks, MOST_INCHES, (WIDEST - BAR) / columns)
    figure = new_figure(side * columns + BAR, side * len(rows) + TITLE)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for draws, line in zip(rows, axes, strict=True):
        drawn = [draw(ax) for draw, ax in zip(draws, line, strict=False)]
        for ax in line[len(draws) :]:
            ax.set_visible(False)
        maps.colour_bar(drawn[-1], list(line[: len(draws)]))
    if all(len(draws) == columns for draws in rows):
        for ax in axes.flat:
            ax.label_outer()
    figure.suptitle(title, fontsize="medium")
    yield name, figure
