"""The page of the demonstration: its three parts in one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.studies.compare.page import overlaps as of_models
from commonweight.studies.continual.page import overlaps as of_tasks
from commonweight.studies.continual.page import pictures as task_pictures
from commonweight.studies.run.page import origin_of, write_run_page
from commonweight.studies.shortcuts.page import overlaps as of_shortcuts
from commonweight.studies.shortcuts.page import pictures as shortcut_pictures

if TYPE_CHECKING:
    from pathlib import Path


def write_page(run: Path) -> Path:
    """Write the page of a finished demonstration."""
    shortcuts = sorted(run.glob("shortcuts-*/run"))[0]
    comparison, tasks = run / "comparison", run / "continual"
    named = {"encoders": of_models(comparison), "shortcuts": of_shortcuts(shortcuts), "tasks": of_tasks(tasks)}
    shown = [replace(each, title=f"{part}: {each.title}") for part, found in named.items() for each in found]
    pictures = [*shortcut_pictures(shortcuts), *task_pictures(tasks)]
    parts = {"Encoders": comparison, "Shortcuts": shortcuts, "Tasks": tasks}
    origin = {
        f"{part}: {head.lower()}": facts for part, place in parts.items() for head, facts in origin_of(place).items()
    }
    return write_run_page(run, shown, pictures, origin)
