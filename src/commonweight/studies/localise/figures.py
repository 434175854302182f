"""Figures of a localisation: what grafts keep and resets cost, against the size of the set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.report.files import new_figure, open_axes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from commonweight.interventions.measure import Metric
    from commonweight.studies.localise.results import Localisation

COLORS = {"set": "#1b6ca8", "matched": "#c4532b", "random": "0.55"}
PANEL = 3.2
"""Inches."""


def figures_of(found: Localisation) -> Iterator[tuple[str, Figure]]:
    """Draw the curves of every model on its own data."""
    figure = new_figure(2 * PANEL, PANEL * len(found.models))
    axes = figure.subplots(len(found.models), 2, squeeze=False, sharex=True)
    for row, model in zip(axes, found.models, strict=True):
        plot_curves(found, model, "graft", row[0])
        plot_curves(found, model, "reset", row[1])
    axes[0, 0].legend(frameon=False, fontsize="x-small")
    yield "curves", figure


def plot_curves(found: Localisation, model: str, way: str, ax: Axes) -> list[Line2D]:
    """Draw accuracy of grafts, or log-likelihood of resets, of the model's own set and its null sets."""
    metric: Metric = "accuracy" if way == "graft" else "log-likelihood"
    lines = []
    for which, color in COLORS.items():
        cells = {
            fraction: each.score
            for fraction in sorted(found.options.fractions)
            if (each := found.find(model, fraction, way, model, which, metric)) is not None and not each.score.reason
        }
        if cells:
            values = [each.value for each in cells.values()]
            lines += ax.plot([*cells], values, color=color, marker="o", markersize=3, label=which)
            low, high = [each.low for each in cells.values()], [each.high for each in cells.values()]
            ax.fill_between([*cells], low, high, color=color, alpha=0.15, linewidth=0)
    for end, style in (("model", "-"), ("base", ":")):
        level = found.find(model, None, end, metric=metric)
        if level is not None and not level.score.reason:
            lines.append(ax.axhline(level.score.value, color="0.3", linewidth=0.8, linestyle=style, label=end))
    ax.set_xscale("log")
    ax.set_title(f"{model}: {way}", fontsize="small")
    ax.set_xlabel("share of the weights")
    ax.set_ylabel(metric)
    open_axes(ax)
    return lines
