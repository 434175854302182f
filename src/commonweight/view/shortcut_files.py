"""A study of shortcuts as files: its tables in Markdown, its figures as PNG and PDF."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.text import to_markdown
from commonweight.view.shortcuts import report

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from commonweight.studies.shortcuts.results import ShortcutStudy

FORMATS = ("png", "pdf")


def write_tables(study: ShortcutStudy, folder: Path) -> Path:
    """Write the tables.

    Args:
        study: What was found.
        folder: Where to; must exist.

    Returns:
        The file ``study.md``.
    """
    path = folder / "study.md"
    path.write_text(to_markdown(report(study)), encoding="utf-8")
    return path


def write_figures(study: ShortcutStudy, folder: Path) -> list[Path]:
    """Draw every figure of a study. Needs ``commonweight[plot]``.

    Args:
        study: What was found.
        folder: Where to; is made.

    Returns:
        The files: overlap bars per label rule, layer curves per label rule, walks, and the accuracies.
    """
    # A figure of its own, not pyplot's: nothing global is touched, and no display is needed.
    from matplotlib.figure import Figure

    from commonweight.view import shortcut_figures as draw

    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(combinations(study.plan.shortcuts, 2))
    written = []
    for rule in study.tables:
        figure = Figure(figsize=(max(6.0, 1.8 * len(pairs)), 4))
        draw.plot_overlap_bars(study, figure.subplots(), rule=rule)
        written += _save(figure, folder, f"overlaps-{rule}")
        figure = Figure(figsize=(4.0 * len(pairs) + 1.5, 0.32 * len(study.layers) + 2), layout="constrained")
        for ax, pair in zip(figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs, strict=True):
            lines = draw.plot_layer_curves(study, ax, pair=pair, rule=rule, panel=True)
        figure.supxlabel(f"Fisher overlap, normalised per layer, label rule {rule}", fontsize="medium")
        figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=4, frameon=False, fontsize="small")
        written += _save(figure, folder, f"layers-{rule}")
    figure = Figure(figsize=(5.0 * len(pairs), 11), layout="constrained")
    axes = figure.subplots(3, len(pairs), sharey=True, squeeze=False)
    for column, (a, b) in enumerate(pairs):
        draw.plot_walk(study, axes[0][column], start=a, end=b)
        draw.plot_walk(study, axes[1][column], start=a, end="random", as_far_as=b)
        draw.plot_walk(study, axes[2][column], start=b, end="random", as_far_as=a)
    written += _save(figure, folder, "walks")
    figure = Figure(figsize=(1.0 * len(study.constants[0]) + 3, 0.4 * len(study.scores[0]) + 2))
    draw.plot_accuracies(study, figure.subplots())
    return written + _save(figure, folder, "accuracies")


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{form}" for form in FORMATS]
    for path in paths:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    return paths
