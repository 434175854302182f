"""A study of shortcuts as files: its tables in Markdown, its figures as PNG and PDF."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.fusion.paths import RANDOM
from commonweight.report.files import new_figure, save, write_report
from commonweight.studies.shortcuts.report import report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.results import ShortcutStudy

COLUMNS = 3
"""Most panels of layers side by side."""

SHOWS = {
    "overlaps": "Raw overlaps of every pair of models",
    "layers": "Raw overlaps layer by layer",
    "walks": "Accuracies on the way from model to model",
    "triangle": "Accuracies between three models",
    "accuracies": "Accuracies of all models on all sets",
}
"""What figures show, by what their names begin with; behind it may come the Fisher type."""


def write_tables(study: ShortcutStudy, folder: Path, figures: Sequence[Path] = ()) -> Path:
    """Write the tables, and a list of the figures."""
    pictures = [path for path in figures if path.suffix == ".png"]
    links = [f"- [{_shows(path.stem)}]({path.relative_to(folder).as_posix()})" for path in pictures]
    return write_report(
        [*report(study), *(["Figures (beside each the same as PDF):", *links] if links else [])], folder
    )


def _shows(name: str) -> str:
    what, _, rule = name.partition("-")
    return SHOWS[what] + (f", Fisher type {rule}" if rule else "")


def write_figures(study: ShortcutStudy, folder: Path) -> list[Path]:
    """Draw every figure of a study. Needs ``commonweight[plot]``."""
    from commonweight.studies.shortcuts import figures as draw
    from commonweight.studies.shortcuts.figures import plot_triangle

    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(combinations(study.plan.shortcuts, 2))
    written = []
    for rule in study.tables:
        figure = new_figure(max(6.0, 1.8 * len(pairs)), 4)
        draw.plot_overlap_bars(study, figure.subplots(), rule=rule)
        written += save(figure, folder, f"overlaps-{rule}")
        columns = min(COLUMNS, len(pairs))
        rows = -(-len(pairs) // columns)
        height = rows * (0.25 * len(study.layers) + 0.8) + 1
        figure = new_figure(4.0 * columns + 1.5, height)
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax, pair in zip(axes, pairs, strict=False):
            lines = draw.plot_layer_curves(study, ax, pair=pair, rule=rule, panel=True)
        for ax in axes[len(pairs) :]:
            ax.set_axis_off()
        figure.supxlabel(draw.layers_label(study, rule), fontsize="medium")
        figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=4, frameon=False, fontsize="small")
        written += save(figure, folder, f"layers-{rule}")
    figure = new_figure(13, 3.4 * len(pairs))
    axes = figure.subplots(len(pairs), 3, sharey=True, squeeze=False)
    for (there, from_a, from_b), (a, b) in zip(axes, pairs, strict=True):
        draw.plot_walk(study, there, start=a, end=b)
        draw.plot_walk(study, from_a, start=a, end=RANDOM, as_far_as=b)
        draw.plot_walk(study, from_b, start=b, end=RANDOM, as_far_as=a)
        for ax in (from_a, from_b):
            ax.set_ylabel("")
    written += save(figure, folder, "walks")
    if study.triangles:
        sets = list(study.triangles[0]["accuracy"])
        figure = new_figure(2.7 * len(sets) + 0.8, 2.9)
        axes = figure.subplots(1, len(sets))
        for ax, data in zip(axes, sets, strict=True):
            cells = plot_triangle(study, ax, data=data)
        figure.colorbar(cells, ax=axes, label="accuracy (cells: percent)", shrink=0.8)
        written += save(figure, folder, "triangle")
    figure = new_figure(1.0 * len(study.constants[0]) + 3, 0.4 * len(study.scores[0]) + 2)
    draw.plot_accuracies(study, figure.subplots())
    return written + save(figure, folder, "accuracies")
