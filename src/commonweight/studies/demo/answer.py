"""What the demonstration found, on one screen, and all of it in every form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Grid, number
from commonweight.report.answer import Answer, Result
from commonweight.report.overlap import cells
from commonweight.report.overlap import result as of_table
from commonweight.studies.continual.answer import overlap_of_masks
from commonweight.studies.continual.answer import result as of_tasks
from commonweight.studies.demo.demo import CONTRASTS, LOCALISED, MERGED, PAIRS, report
from commonweight.studies.localise.answer import result as of_localisation
from commonweight.studies.merge_check.answer import result as of_merges
from commonweight.studies.shortcuts.answer import differences, kept_by_average
from commonweight.studies.shortcuts.answer import result as of_shortcuts
from commonweight.verdicts.rules import MORE

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.studies.demo.demo import Demo
    from commonweight.studies.localise.results import Localisation
    from commonweight.studies.merge_check.results import MergeCheck
    from commonweight.studies.shortcuts.results import ShortcutStudy

QUESTION = "What do two encoders, three shortcut models and five tasks in one network have in common?"
REST = (
    "study.md holds every table",
    "comparison/, localised/, merged/, shortcuts-SEED/run/ and continual/ the runs, for commonweight show",
)
HEADER = ("", "found", "beside it")
WARNING = ("comparison", "shortcuts", "continual")
"""Parts whose warnings are shown: the two trials warn of training rows, and here all rows are held out."""


def result(
    demo: Demo,
    trials: tuple[Localisation, MergeCheck],
    shortcuts: ShortcutStudy,
    tasks: ContinualStudy,
    folder: Path,
    *,
    is_kept: bool,
) -> Result:
    """Put the four parts together."""
    localised, merged = trials
    table = demo.comparison.table
    parts = {
        "comparison": of_table(table, demo.comparison.contrasts),
        "localise": of_localisation(localised, folder / LOCALISED),
        "merge-check": of_merges(merged, folder / MERGED),
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
    rows = [_overlapping(words, cells(table, pair)) for words, pair in PAIRS.items()]
    rows += [*_localised(localised), _merged(merged)]
    found = Answer(
        QUESTION,
        said,
        Grid("Corrected overlaps of the two encoders and their start, and both trials", HEADER, tuple(rows)),
        tuple(dict.fromkeys(sentence for name in WARNING for sentence in parts[name].answer.beware)),
        REST if is_kept else ("with -o RUN everything is kept",),
    )
    record = {"answer": found.record(), **{name: json.loads(part.json) for name, part in parts.items()}}
    blocks = report(demo)
    for name, part in parts.items():
        if name != "comparison":
            blocks += [part.answer.question, part.answer.answer, *part.blocks]
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return Result(found, blocks, text, "".join(f"# {name}\n{part.csv}" for name, part in parts.items()))


def _overlapping(words: str, pair: tuple[str, ...]) -> tuple[str, str, str]:
    corrected, interval, null, above = pair
    return words, f"{corrected} {interval}", f"null {null}: {above}"


def _localised(found: Localisation) -> list[tuple[str, str, str]]:
    share = f"{100 * found.options.primary:g} % reset"
    return [
        (f"localise: {share}, {model}", f"{_cost(found, model, 'set')} nats", f"random {_cost(found, model, 'random')}")
        for model in found.models
    ]


def _cost(found: Localisation, model: str, which: str) -> str:
    cell = found.find(model, found.options.primary, "reset", model, which, "log-likelihood")
    return DASH if cell is None else number(cell.difference.value, 3)


def _merged(found: MergeCheck) -> tuple[str, str, str]:
    best = found.best
    return f"best merge: {best.trial.label}", f"{best.mean().short()} nats", "against the own parent"
