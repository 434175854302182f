"""What a study of shortcuts answers: does shared knowledge overlap more than unshared, does averaging forget it?"""

from __future__ import annotations

import json
from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.text import Grid, number
from commonweight.report.answer import LINES, Answer, Result
from commonweight.report.verdicts import verdict_records
from commonweight.studies.run.results import to_csv
from commonweight.studies.shortcuts.plan import ORIGINAL, TOGETHER
from commonweight.studies.shortcuts.report import figure_links, report
from commonweight.verdicts.rules import INCONCLUSIVE, LESS, MORE
from commonweight.verdicts.words import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.results import ShortcutStudy

QUESTION = "Does shared knowledge overlap more than unshared, and does averaging the models forget it?"
CONTRAST = "shared − unshared"
REST = ("study.md holds every table", "study.json and study.csv every number", "figures/ the pictures")
MOST_WARNINGS = 4


def answer(study: ShortcutStudy) -> Answer:
    """Answer in one screen, for the first Fisher type."""
    rule = next(iter(study.tables))
    said = f"{_overlaps(study, rule)} {_forgets(study)}"
    return Answer(QUESTION, said, _pairs(study, rule), _beware(study, rule), REST)


def result(study: ShortcutStudy, run: Path, figures: Sequence[Path] = ()) -> Result:
    """Give all of it in every form."""
    found = answer(study)
    record = json.loads(study.to_json())
    verdicts = [
        {"fisher_type": rule, **each}
        for rule in study.tables
        for each in verdict_records({
            f"{' and '.join(pair)}: {name}": {
                layer: study.verdicts(rule, layer)[pair][name] for layer in (*study.layers, None)
            }
            for pair, contrasts in study.verdicts(rule).items()
            for name in contrasts
        })
    ]
    text = json.dumps({"answer": found.record(), **record, "verdicts": verdicts}, indent=1, ensure_ascii=False)
    return Result(found, report(study), f"{text}\n", to_csv(record), figure_links(run, figures))


def differences(study: ShortcutStudy, rule: str) -> list[float]:
    """Tell of every pair of models how much more they share on the common task than on their own shortcuts."""
    return [each[CONTRAST].estimate.value for each in study.verdicts(rule).values()]


def _overlaps(study: ShortcutStudy, rule: str) -> str:
    found = differences(study, rule)
    counts = Counter(each[CONTRAST].answer for each in study.verdicts(rule).values())
    above = sum(value > 0 for value in found)
    said = {MORE: "share more", LESS: "share less", INCONCLUSIVE: "are inconclusive"}
    answers = ", ".join(f"{count} {said[each]}" for each, count in counts.items())
    of = study.best_known(rule)
    return (
        f"In {above} of {len(found)} pairs of models the {of} overlap is larger on the common task than on their "
        f"own shortcuts (by {number(min(found), 3)} to {number(max(found), 3)}); of the verdicts {answers}."
    )


class Kept(NamedTuple):
    """Mean accuracies of the models, and of the average of all of them."""

    shortcuts: float
    shortcuts_averaged: float
    task: float
    task_averaged: float


def kept_by_average(study: ShortcutStudy) -> Kept:
    """Compare the models with their average: each on its own shortcut, and all on the task."""
    codes = study.plan.shortcuts
    average = TOGETHER.join(codes)
    shortcuts = (
        fmean(study.accuracy(model or code, f"{code} test").value for code in codes) for model in ("", average)
    )
    task = (fmean(study.accuracy(each, f"{ORIGINAL} test").value for each in of) for of in (codes, (average,)))
    return Kept(*shortcuts, *task)


def _forgets(study: ShortcutStudy) -> str:
    kept = kept_by_average(study)
    return (
        f"The average of all {len(study.plan.shortcuts)} models keeps {kept.shortcuts_averaged:.3f} of "
        f"{kept.shortcuts:.3f} accuracy on the shortcuts, and {kept.task_averaged:.3f} of {kept.task:.3f} on the task."
    )


def _pairs(study: ShortcutStudy, rule: str) -> Grid:
    of = study.best_known(rule)
    cells, verdicts = study.cells(rule, of=of), study.verdicts(rule)
    shown = list(cells)[: LINES - 4]
    left = len(cells) - len(shown)
    rows = tuple(
        (
            " and ".join(pair),
            cells[pair]["shared"].brief(),
            cells[pair]["unshared"].brief(),
            f"{verdicts[pair][CONTRAST].estimate.value:+.3f}",
            verdicts[pair][CONTRAST].answer,
        )
        for pair in shown
    )
    title = f"{of.capitalize()} Fisher overlap, Fisher type {rule}{f'; {left} more in the files' if left else ''}"
    return Grid(title, ("models", "shared", "unshared", "difference", "verdict"), rows)


def _beware(study: ShortcutStudy, rule: str) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for code in study.without_shortcut:
        found[code] = f"{code} did not learn its shortcut, so its overlaps mean nothing"
    for each in study.verdicts(rule).values():
        verdict = each[CONTRAST]
        for finding in (*verdict.lacking, *verdict.beware):
            if finding.code not in {"shortcut learned", "excludes 0"}:
                found.setdefault(finding.code, sentence(finding))
    return tuple(f"{words[0].upper()}{words[1:]}." for words in list(found.values())[:MOST_WARNINGS])
