"""The figure of a merge check: merges less their parents, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.report.files import new_figure, open_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

    from commonweight.studies.merge_check.results import Merge, MergeCheck

WIDTH, LINE = 6.4, 0.22
"""Inches."""


def figures_of(found: MergeCheck) -> Iterator[tuple[str, Figure]]:
    """Draw the ranking."""
    figure = new_figure(WIDTH, 1.0 + LINE * len(found.shortlist))
    plot_merges(found.shortlist, figure.subplots())
    yield "merges", figure


def plot_merges(merges: Sequence[Merge], ax: Axes) -> ErrorbarContainer:
    """Draw the mean change of merges with its interval, and the worst data set as a cross."""
    means = [each.mean() for each in merges]
    places = range(len(means))
    values = [mean.value for mean in means]
    ends = [[mean.value - mean.low for mean in means], [mean.high - mean.value for mean in means]]
    drawn = ax.errorbar(values, places, xerr=ends, fmt="o", color="#1b6ca8", markersize=3, label="mean")
    worst = [each.changes["log-likelihood"][each.worst].value for each in merges]
    ax.plot(worst, places, linestyle="", marker="x", color="#c4532b", markersize=4, label="worst data set")
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, [each.name for each in merges], fontsize="x-small")
    ax.invert_yaxis()
    ax.set_xlabel("change of the mean log-likelihood, nats per row")
    ax.legend(frameon=False, fontsize="x-small")
    open_axes(ax)
    return drawn
