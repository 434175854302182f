"""The page and the figures of the demonstration: its parts in one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.report.answer import ANSWER
from commonweight.studies.compare import page as of_models
from commonweight.studies.continual import page as of_tasks
from commonweight.studies.demo.demo import LOCALISED, MERGED
from commonweight.studies.localise import page as of_sets
from commonweight.studies.localise.answer import SHOWS as OF_SETS
from commonweight.studies.merge_check import page as of_merges
from commonweight.studies.merge_check.answer import SHOWS as OF_MERGES
from commonweight.studies.run.page import origin_of, pictures_of, write_run_page
from commonweight.studies.run.record import RECORD
from commonweight.studies.shortcuts import page as of_shortcuts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure


ROOMS = {
    "encoders": of_models,
    "localise": of_sets,
    "merge-check": of_merges,
    "shortcuts": of_shortcuts,
    "tasks": of_tasks,
}


def write_page(run: Path) -> Path:
    """Write the page of a finished demonstration."""
    parts = _parts(run)
    shown = [
        replace(each, title=f"{part}: {each.title}")
        for part, place in parts.items()
        for each in ROOMS[part].overlaps(place)
    ]
    pictures = [
        *pictures_of(parts["localise"], OF_SETS),
        *pictures_of(parts["merge-check"], OF_MERGES),
        *of_shortcuts.pictures(parts["shortcuts"]),
        *of_tasks.pictures(parts["tasks"]),
    ]
    origin = {
        f"{part.capitalize()}: {head.lower()}": facts
        for part, place in parts.items()
        for head, facts in origin_of(place).items()
    }
    return write_run_page(run, shown, pictures, origin)


def figures(run: Path) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of all parts."""
    found = {part: ROOMS[part].figures(place) for part, place in _parts(run).items()}
    return ((f"{part}-{name}", figure) for part, of_part in found.items() for name, figure in of_part)


def items(run: Path) -> dict[str, Path]:
    """Name what the parts consist of that were begun, and the parts that were not."""
    found: dict[str, Path] = {}
    for part, place in _places(run).items():
        if (place / RECORD).is_file():
            found |= {f"{part}: {name}": file for name, file in ROOMS[part].items(place).items()}
        else:
            found[f"{part}: all of it"] = place / RECORD
    return found


def _parts(run: Path) -> dict[str, Path]:
    """Find the runs of the parts, all of which are finished."""
    places = _places(run)
    if missing := [part for part, place in places.items() if not (place / ANSWER).is_file()]:
        raise UsageError(f"{run} has no finished part on {missing[0]}: give another folder to commonweight demo -o")
    return places


def _places(run: Path) -> dict[str, Path]:
    """Name the run folders of the parts."""
    shortcuts = next(iter(sorted(run.glob("shortcuts-*"))), run / "shortcuts-0")
    return {
        "encoders": run / "comparison",
        "localise": run / LOCALISED,
        "merge-check": run / MERGED,
        "shortcuts": shortcuts / "run",
        "tasks": run / "continual",
    }
