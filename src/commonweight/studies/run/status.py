"""How far a run is, from its files alone."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

from commonweight.base.folders import LEFTOVER
from commonweight.base.records import without_nan
from commonweight.base.text import DASH, Grid, csv_text, time_words
from commonweight.report.answer import Answer, Result
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.record import RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STATES = ("at work", "missing", "done")
"""Of an item, in the order in which items are listed."""

HEADER = ("item", "state")
MOST_ROWS = 16
"""Items on the screen."""

STALE = 3600.0
"""Seconds without a change after which what is half written counts as left behind."""


def status_of(run: Path, items: Mapping[str, Path]) -> Result:
    """Say what of a run is done, at work and missing; an item is done when its file is there."""
    done = {name: place.stat().st_mtime for name, place in items.items() if place.exists()}
    states = {name: "done" if name in done else _state(place) for name, place in items.items()}
    counts = {state: list(states.values()).count(state) for state in STATES}
    listed = sorted(states.items(), key=lambda item: STATES.index(item[1]))
    record = read_json(run / RECORD) if (run / RECORD).is_file() else {}
    state = f" The run is {record['status']}." if record else ""
    seconds = _seconds_left(sorted(done.values()), len(items) - len(done))
    left = "none" if seconds == 0 else DASH if math.isnan(seconds) else f"about {time_words(seconds)}"
    more = len(listed) - MOST_ROWS
    found = Answer(
        f"How far is {run}?",
        f"{counts['done']} of {len(items)} items are done, {counts['at work']} at work, {counts['missing']} missing."
        f"{state} Time left: {left}.",
        Grid(f"Items; {more} more are not shown" if more > 0 else "Items", HEADER, tuple(listed[:MOST_ROWS])),
    )
    values = without_nan({"counts": counts, "seconds_left": seconds, "items": states})
    text = json.dumps({"answer": found.record(), **values}, indent=1, ensure_ascii=False)
    return Result(found, [Grid("Items", HEADER, tuple(listed))], f"{text}\n", csv_text(HEADER, listed))


def _state(place: Path) -> str:
    """Tell whether somebody writes beside the place of an item, or beside that of its folder."""
    now = time.time()
    for path in (place, place.parent):
        for other in path.parent.glob(f".{path.name}.*") if path.parent.is_dir() else ():
            if LEFTOVER.fullmatch(other.name) and now - other.stat().st_mtime < STALE:
                return "at work"
    return "missing"


def _seconds_left(ended: list[float], waiting: int) -> float:
    """Guess from when items ended; nan where there are too few."""
    if not waiting:
        return 0.0
    return (ended[-1] - ended[0]) / (len(ended) - 1) * waiting if len(ended) > 1 else math.nan
