"""A study of continual learning as files: its tables in Markdown, its figures as PNG and PDF."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from commonweight.report.files import new_figure, save, write_report
from commonweight.studies.continual.report import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from commonweight.footprints.footprint import Footprint
    from commonweight.overlaps.similarity.means import TaskSimilarity
    from commonweight.studies.continual.results import ApproachRun, ContinualStudy

T = TypeVar("T")

MOST_COLUMNS = 5

BAR = 0.9
"""Inches for the colour bar of a figure."""

MASK_SIDE = 6
"""Tasks whose panels are as large as that of a mask."""


def write_tables(study: ContinualStudy, folder: Path) -> Path:
    """Write the tables."""
    return write_report(report(study), folder)


def write_figures(study: ContinualStudy, folder: Path) -> list[Path]:
    """Draw every figure of a study; those of single networks from seed 0. Needs ``commonweight[plot]``."""
    from commonweight.studies.continual import figures as draw

    folder.mkdir(parents=True, exist_ok=True)
    written = _panels(
        folder, "accuracy", study.plan.tasks, list(study.runs),
        lambda ax, name: draw.plot_accuracy_matrix(study, ax, approach=name),
    )  # fmt: skip
    if study.plan.tasks == 1:
        return written
    figure = new_figure(7.0, 4.5)
    draw.plot_learning_curves(study, figure.subplots())
    written += save(figure, folder, "curves")
    if "classic" in study.runs and len(study.runs) > 1:
        figure = new_figure(7.0, 1.0 + 0.35 * len(study.runs))
        draw.plot_gains(study, figure.subplots())
        written += save(figure, folder, "gains")
    for name, runs in study.runs.items():
        written += _network_figures(runs[0], folder, name, study.plan.tasks)
    return written


def write_mask_figure(masks: Mapping[str, Footprint], folder: Path) -> list[Path]:
    """Draw the masks of one layer, one panel per task: the last layer but one, or the only one."""
    from commonweight.report.maps import plot_supermask

    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(masks.values()))
    layer = first.names[-2:][0]
    flipped = bool(first.metadata.get("flipped"))
    what = "flipped bits of the mask" if flipped else "mask"

    def draw(ax: Axes, task: str) -> AxesImage:
        bits = masks[task][layer].flatten(1)
        title = f"{what} of {layer},\ntask {{task}}"
        image = plot_supermask(ax, bits, task, title=title, xlabel="input", ylabel="unit").image
        ax.set_aspect("auto")  # as high as the colour bar
        return image

    ends = ("as at the start", "flipped") if flipped else ("left out", "kept")
    return _panels(folder, "masks", MASK_SIDE, list(masks), draw, ends=ends)


def _network_figures(run: ApproachRun, folder: Path, name: str, tasks: int) -> list[Path]:
    from commonweight.report import maps as draw

    def similarity(ax: Axes, which: tuple[TaskSimilarity, str]) -> AxesImage:
        table, layer = which
        image = draw.plot_similarity(table, ax, layer=layer).image
        ax.set_title(f"{table.approach.replace('_', ' ')}, {layer}")
        return image

    written = []
    table = run.overlap
    if table is not None:
        layers: list[str | None] = [*table.layers, None]
        written += _panels(
            folder, f"overlap-{name}", tasks, layers,
            lambda ax, layer: draw.plot_overlap_matrix(table, ax, layer=layer).image,
        )  # fmt: skip
    pairs = [(found, layer) for found in run.similarity.values() for layer in found.layers]
    written += _panels(
        folder, f"similarity-{name}", tasks, pairs, similarity, label=f"task similarity\n({draw.STARRED})"
    )
    chosen = [alphas for alphas in run.alphas if alphas is not None]
    written += _panels(folder, f"alphas-{name}", tasks, chosen, lambda ax, alphas: draw.plot_alphas(alphas, ax).image)
    return written


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
