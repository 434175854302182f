"""The page and the figures of the demonstration: its three parts in one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.studies.compare import page as of_models
from commonweight.studies.continual import page as of_tasks
from commonweight.studies.run.page import origin_of, write_run_page
from commonweight.studies.shortcuts import page as of_shortcuts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure


def write_page(run: Path) -> Path:
    """Write the page of a finished demonstration."""
    comparison, shortcuts, tasks = _parts(run)
    named = {
        "encoders": of_models.overlaps(comparison),
        "shortcuts": of_shortcuts.overlaps(shortcuts),
        "tasks": of_tasks.overlaps(tasks),
    }
    shown = [replace(each, title=f"{part}: {each.title}") for part, found in named.items() for each in found]
    pictures = [*of_shortcuts.pictures(shortcuts), *of_tasks.pictures(tasks)]
    parts = {"Encoders": comparison, "Shortcuts": shortcuts, "Tasks": tasks}
    origin = {
        f"{part}: {head.lower()}": facts for part, place in parts.items() for head, facts in origin_of(place).items()
    }
    return write_run_page(run, shown, pictures, origin)


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of all three parts."""
    comparison, shortcuts, tasks = _parts(run)
    named = {
        "encoders": of_models.figures(comparison),
        "shortcuts": of_shortcuts.figures(shortcuts),
        "tasks": of_tasks.figures(tasks),
    }
    return ((f"{part}-{name}", figure) for part, found in named.items() for name, figure in found)


def items(run: Path) -> dict[str, Path]:
    """Name what the parts consist of."""
    comparison, shortcuts, tasks = _parts(run)
    named = {"encoders": of_models.items(comparison), "tasks": of_tasks.items(tasks)}
    named["shortcuts"] = of_shortcuts.items(shortcuts)
    return {f"{part}: {name}": place for part, found in named.items() for name, place in found.items()}


def _parts(run: Path) -> tuple[Path, Path, Path]:
    """Find the runs of encoders, shortcuts and tasks."""
    return run / "comparison", sorted(run.glob("shortcuts-*/run"))[0], run / "continual"
