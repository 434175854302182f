"""Figures of a study of continual learning: each takes axes and the finished study, and returns what it drew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.report.files import COLORS
from commonweight.studies.continual.report import mean_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

    from commonweight.studies.continual.results import ContinualStudy

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
    _open(ax)
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
    _open(ax)
    return drawn


def plot_accuracy_matrix(study: ContinualStudy, ax: Axes, *, approach: str) -> AxesImage:
    """Draw the accuracy matrix of an approach, mean over seeds."""
    if approach not in study.runs:
        raise UsageError(f"the study has no approach {approach!r}; it has {', '.join(study.runs)}")
    R = np.mean([run.R for run in study.runs[approach]], axis=0)
    image = ax.imshow(R, vmin=0, vmax=1, cmap="viridis")
    for (i, j), value in np.ndenumerate(R):
        if not np.isnan(value):
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value < 0.6 else "k")
    ax.set_xticks(range(len(R)))
    ax.set_yticks(range(len(R)))
    ax.set_xlabel("accuracy on task")
    ax.set_ylabel("after learning task")
    ax.set_title(approach, fontsize="medium")
    ax.figure.colorbar(image, ax=ax, label="accuracy")
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


def _open(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
