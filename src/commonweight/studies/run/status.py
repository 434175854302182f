"""How far a run is, from its files alone."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from commonweight.base.folders import LEFTOVER
from commonweight.base.text import DASH, Block, Grid, time_words
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.record import RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOST_ROWS = 16
"""Items that are listed: those at work first, then the missing ones."""

STALE = 3600.0
"""Seconds without a change after which what is half written counts as left behind."""


def status_blocks(run: Path, items: Mapping[str, Path]) -> list[Block]:
    """Say what of a run is done, at work and missing; an item is done when its file is there."""
    done = {name: place.stat().st_mtime for name, place in items.items() if place.exists()}
    waiting = {name: place for name, place in items.items() if name not in done}
    working = [name for name, place in waiting.items() if _is_at_work(place)]
    missing = [name for name in waiting if name not in working]
    states = [*((name, "at work") for name in working), *((name, "missing") for name in missing)]
    left = len(states) - MOST_ROWS
    title = f"Items of {run}" + (f"; {left} more are missing" if left > 0 else "")
    record = read_json(run / RECORD) if (run / RECORD).is_file() else {}
    counts = f"{len(done)} of {len(items)} items are done, {len(working)} at work, {len(missing)} missing."
    state = f" The run is {record['status']}." if record else ""
    return [
        f"{counts}{state} Time left: {_left(sorted(done.values()), len(waiting))}.",
        *([Grid(title, ("item", "state"), tuple(states[:MOST_ROWS]))] if states else []),
    ]


def _is_at_work(place: Path) -> bool:
    """Tell whether somebody writes beside the place of an item, or beside that of its folder."""
    now = time.time()
    for path in (place, place.parent):
        for other in path.parent.glob(f".{path.name}.*") if path.parent.is_dir() else ():
            if LEFTOVER.fullmatch(other.name) and now - other.stat().st_mtime < STALE:
                return True
    return False


def _left(ended: list[float], waiting: int) -> str:
    """Guess from when items ended; a dash where there are too few."""
    if not waiting:
        return "none"
    between = (ended[-1] - ended[0]) / (len(ended) - 1) if len(ended) > 1 else math.nan
    return DASH if math.isnan(between) else f"about {time_words(between * waiting)}"
