"""Figures of a study of continual learning: each takes axes and the finished study; all of them as PNG and PDF."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.report import maps
from commonweight.report.files import COLORS, new_figure, open_axes, save
from commonweight.studies.continual.report import mean_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

    from commonweight.footprints.footprint import Footprint
    from commonweight.overlaps.similarity.means import TaskSimilarity
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.studies.continual.results import ApproachRun, ContinualStudy

T = TypeVar("T")

MOST_COLUMNS = 5
BAR = 0.9
"""Inches for the colour bar of a figure."""

MASK_SIDE = 6
"""Tasks whose panels are as large as that of a mask."""

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


def plot_accuracy_matrix(study: ContinualStudy, ax: Axes, *, approach: str) -> AxesImage:
    """Draw the accuracy matrix of an approach, mean over seeds."""
    if approach not in study.runs:
        raise UsageError(f"the study has no approach {approach!r}; it has {', '.join(study.runs)}")
    R = np.mean([run.R for run in study.runs[approach]], axis=0)
    image = maps.accuracy_map(ax, R, fontsize=7)
    ax.set_xticks(range(len(R)))
    ax.set_yticks(range(len(R)))
    ax.set_xlabel("accuracy on task")
    ax.set_ylabel("after learning task")
    ax.set_title(approach, fontsize="medium")
    return image


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


def write_figures(study: ContinualStudy, folder: Path) -> list[Path]:
    """Draw every figure of a study; those of single networks from seed 0. Needs ``commonweight[plot]``."""
    folder.mkdir(parents=True, exist_ok=True)

    def accuracies(ax: Axes, name: str) -> AxesImage:
        return plot_accuracy_matrix(study, ax, approach=name)

    written = _panels(folder, "accuracy", study.plan.tasks, list(study.runs), accuracies)
    if study.plan.tasks == 1:
        return written
    figure = new_figure(7.0, 4.5)
    plot_learning_curves(study, figure.subplots())
    written += save(figure, folder, "curves")
    if "classic" in study.runs and len(study.runs) > 1:
        figure = new_figure(7.0, 1.0 + 0.35 * len(study.runs))
        plot_gains(study, figure.subplots())
        written += save(figure, folder, "gains")
    for name, runs in study.runs.items():
        written += _network_figures(runs[0], folder, name, study.plan.tasks)
    return written


def write_mask_figure(masks: Mapping[str, Footprint], folder: Path) -> list[Path]:
    """Draw the masks of one layer, one panel per task: the last layer but one, or the only one."""
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(masks.values()))
    layer = first.names[-2:][0]
    flipped = bool(first.metadata.get("flipped"))
    what = "flipped bits of the mask" if flipped else "mask"

    def draw(ax: Axes, task: str) -> AxesImage:
        bits = masks[task][layer].flatten(1)
        title = f"{what} of {layer},\ntask {{task}}"
        image = maps.plot_supermask(ax, bits, task, title=title, xlabel="input", ylabel="unit").image
        ax.set_aspect("auto")  # as high as the colour bar
        return image

    ends = ("as at the start", "flipped") if flipped else ("left out", "kept")
    return _panels(folder, "masks", MASK_SIDE, list(masks), draw, ends=ends)


def _network_figures(run: ApproachRun, folder: Path, name: str, tasks: int) -> list[Path]:
    def similarity(ax: Axes, which: tuple[TaskSimilarity, str]) -> AxesImage:
        table, layer = which
        image = maps.plot_similarity(table, ax, layer=layer).image
        ax.set_title(f"{table.approach.replace('_', ' ')}, {layer}")
        return image

    def overlaps(ax: Axes, which: tuple[OverlapTable, str | None]) -> AxesImage:
        return maps.plot_overlap_matrix(which[0], ax, layer=which[1]).image

    layers = [(table, layer) for table in [run.overlap] if table is not None for layer in (*table.layers, None)]
    pairs = [(found, layer) for found in run.similarity.values() for layer in found.layers]
    chosen = [alphas for alphas in run.alphas if alphas is not None]
    starred = f"task similarity\n({maps.STARRED})"
    return [
        *_panels(folder, f"overlap-{name}", tasks, layers, overlaps),
        *_panels(folder, f"similarity-{name}", tasks, pairs, similarity, label=starred),
        *_panels(folder, f"alphas-{name}", tasks, chosen, lambda ax, alphas: maps.plot_alphas(alphas, ax).image),
    ]


def _panels(
    folder: Path,
    name: str,
    tasks: int,
    items: Sequence[T],
    draw: Callable[[Axes, T], AxesImage],
    *,
    label: str | None = None,
    ends: tuple[str, str] | None = None,
) -> list[Path]:
    """One figure with a panel for each item, as large as its number of tasks asks for; none without items."""
    # The colour bars of the panels, which all have one scale, become one of the figure, with their label unless another
    # is given; ``ends`` are words for 0 and 1.
    if not items:
        return []
    side = 2.2 + 0.5 * tasks
    columns = min(len(items), MOST_COLUMNS)
    rows = math.ceil(len(items) / columns)
    figure = new_figure(side * columns + BAR, 0.9 * side * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(items) :]:
        ax.set_visible(False)
    images = [draw(ax, item) for ax, item in zip(axes, items, strict=False)]
    own = [image.colorbar for image in images if image.colorbar is not None]
    label = own[0].ax.get_ylabel() if label is None else label
    for each in own:
        each.remove()
    bar = figure.colorbar(images[0], ax=axes[: len(items)], label=label, fraction=0.05, aspect=15 * rows, pad=0.01)
    if ends is not None:
        bar.set_ticks([0, 1], labels=ends)
    return save(figure, folder, name)
