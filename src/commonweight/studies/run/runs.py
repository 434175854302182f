"""The runs in a folder."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import json_file, unsealed
from commonweight.base.text import DASH, Grid, csv_text
from commonweight.report.answer import ANSWER, COLUMNS, SHORTEST, Answer, Result
from commonweight.studies.run.folder import read_json
from commonweight.studies.run.record import FORMAT, RECORD

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DEMO = "demo.json"
"""Record of a demonstration, which holds several runs."""

DEPTHS = ("", "*/", "*/*/", "*/*/*/")


class Run(NamedTuple):
    """What a run says of itself; nothing if it is damaged."""

    run: str
    study: str | None
    state: str
    answer: str | None = None


def study_of(run: Path, known: Collection[str]) -> str:
    """Tell which of the known studies a run folder is of."""
    found = "demo" if (run / DEMO).is_file() else None
    if (run / RECORD).is_file():
        found = read_json(run / RECORD).get("study")
    if found not in known:
        raise UsageError(f"{run} holds no run: give the folder that a study or the demo wrote")
    return str(found)


def runs_in(folder: Path) -> list[Run]:
    """Find runs, with their state and their answer."""
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; give the folder that holds runs, such as runs")
    found = []
    for file in sorted(file for depth in DEPTHS for file in folder.glob(f"{depth}{RECORD}")):
        run = file.parent
        try:
            record = json_file(file, "")
            if not isinstance(record, dict) or record.get("format") != FORMAT:
                continue
            unsealed(record, str(file), "")
            answer = Answer.load(run).answer if (run / ANSWER).is_file() else None
        except IntegrityError:
            found.append(Run(str(run), None, "damaged"))
            continue
        found.append(Run(str(run), str(record.get("study")), str(record.get("status")), answer))
    if not found:
        raise UsageError(f"no run in {folder}: give the folder that holds them, such as runs")
    return found


def listed(folder: Path) -> Result:
    """List the runs in a folder, in every form; on one screen with the beginning of their answers."""
    runs = runs_in(folder)
    states = Counter(run.state for run in runs)
    header = ("run", "study", "state", "answer")
    rows = [(run.run, run.study or DASH, run.state, run.answer or DASH) for run in runs]
    used = sum(2 + max(len(row[column]) for row in (header, *rows)) for column in range(3))
    room = max(SHORTEST, COLUMNS - used)
    cut = tuple((*row[:3], textwrap.shorten(row[3], room, placeholder="…")) for row in rows)
    title = f"Runs in {folder}"
    found = Answer(
        f"Which runs does {folder} hold?",
        f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(f'{count} {state}' for state, count in states.items())}.",
        Grid(title, header, cut),
        rest=("commonweight show RUN shows what one found",),
    )
    text = json.dumps({"answer": found.record(), "runs": [run._asdict() for run in runs]}, indent=1, ensure_ascii=False)
    return Result(found, [Grid(title, header, tuple(rows))], f"{text}\n", csv_text(header, runs))
