"""The runs in a folder."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file, unsealed
from commonweight.base.text import DASH, Grid
from commonweight.report.answer import ANSWER, COLUMNS, Answer
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.record import FORMAT, RECORD

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DEMO = "demo.json"
"""Record of a demonstration, which holds several runs."""

SHORTEST = 24
"""Characters of an answer that are shown, however long the other columns are."""

DEPTHS = ("", "*/", "*/*/", "*/*/*/")


def study_of(run: Path, known: Collection[str]) -> str:
    """Tell which of the known studies a run folder is of."""
    found = "demo" if (run / DEMO).is_file() else None
    if (run / RECORD).is_file():
        found = read_json(run / RECORD).get("study")
    if found not in known:
        raise UsageError(f"{run} holds no run: give the folder that a study or the demo wrote")
    return str(found)


def runs_grid(folder: Path) -> Grid:
    """List runs with their state and the first sentence of their answer."""
    rows = []
    for file in sorted(file for depth in DEPTHS for file in folder.glob(f"{depth}{RECORD}")):
        run = file.parent
        try:
            record = json_file(file, "")
            if not isinstance(record, dict) or record.get("format") != FORMAT:
                continue
            unsealed(record, str(file), "")
            found = Answer.load(run).answer.partition(". ")[0] if (run / ANSWER).is_file() else DASH
        except IntegrityError:
            rows.append((str(run), DASH, "damaged", DASH))
            continue
        rows.append((str(run), str(record.get("study")), str(record.get("status")), found.rstrip(".")))
    if not rows:
        raise UsageError(f"no run in {folder}: give the folder that holds them, such as runs")
    header = ("run", "study", "state", "answer")
    used = sum(2 + max(len(row[column]) for row in (header, *rows)) for column in range(3))
    room = max(SHORTEST, COLUMNS - used)
    cut = tuple((*row[:3], textwrap.shorten(row[3], room, placeholder="…")) for row in rows)
    return Grid(f"Runs in {folder}", header, cut)
