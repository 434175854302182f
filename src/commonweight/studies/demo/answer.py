"""What the demonstration found, on one screen, and all of it in every form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from commonweight.base.text import Grid, number
from commonweight.report.answer import Answer, Result
from commonweight.report.overlap import cells
from commonweight.report.overlap import result as of_table
from commonweight.studies.continual.answer import overlap_of_masks
from commonweight.studies.continual.answer import result as of_tasks
from commonweight.studies.demo.demo import CONTRASTS, PAIRS, report
from commonweight.studies.shortcuts.answer import differences, kept_by_average
from commonweight.studies.shortcuts.answer import result as of_shortcuts
from commonweight.verdicts.rules import MORE

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.studies.demo.demo import Demo
    from commonweight.studies.shortcuts.results import ShortcutStudy

QUESTION = "What do two encoders, three shortcut models and five tasks in one network have in common?"
REST = (
    "study.md holds every table",
    "comparison/, shortcuts-SEED/run/ and continual/ the runs, for commonweight show",
)


def result(demo: Demo, shortcuts: ShortcutStudy, tasks: ContinualStudy, folder: Path, *, is_kept: bool) -> Result:
    """Put the three parts together."""
    table = demo.comparison.table
    parts = {
        "comparison": of_table(table, demo.comparison.contrasts),
        "shortcuts": of_shortcuts(shortcuts, folder),
        "continual": of_tasks(tasks),
    }
    verdicts = {words: table.verdict(*pairs, same_rows=True) for words, pairs in CONTRASTS.items()}
    more = sum(verdict.answer == MORE for verdict in verdicts.values())
    encoders = " and ".join(number(verdict.estimate.value, 3) for verdict in verdicts.values())
    pairs = differences(shortcuts, next(iter(shortcuts.tables)))
    kept = kept_by_average(shortcuts)
    raw, beyond = overlap_of_masks(tasks)
    said = (
        f"The two trained encoders share more with each other than with their start in {more} of {len(verdicts)} "
        f"comparisons (by {encoders}), and the shortcut models share more on the common task than on their own "
        f"shortcuts in {sum(value > 0 for value in pairs)} of {len(pairs)} pairs (by {number(min(pairs), 3)} to "
        f"{number(max(pairs), 3)}). The average of the shortcut models keeps {kept.shortcuts_averaged:.3f} of "
        f"{kept.shortcuts:.3f} accuracy on the shortcuts, and the masks of two tasks overlap by "
        f"{number(raw.value, 3)}, {number(beyond.value, 3)} beyond chance."
    )
    rows = tuple((words, *cells(table, pair)) for words, pair in PAIRS.items())
    found = Answer(
        QUESTION,
        said,
        Grid("Fisher overlap of the two encoders and their start", ("", "corrected", "95 %", "null", "above?"), rows),
        tuple(dict.fromkeys(sentence for part in parts.values() for sentence in part.answer.beware)),
        REST if is_kept else ("with -o RUN everything is kept",),
    )
    record = {"answer": found.record(), **{name: json.loads(part.json) for name, part in parts.items()}}
    blocks = report(demo)
    for part in (parts["shortcuts"], parts["continual"]):
        blocks += [part.answer.question, part.answer.answer, *part.blocks]
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return Result(found, blocks, text, "".join(f"# {name}\n{part.csv}" for name, part in parts.items()))
