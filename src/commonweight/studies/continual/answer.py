"""What a study of continual learning answers: does a similar prior task help, and do tasks share weights?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base.estimate import Estimate
from commonweight.base.records import without_nan
from commonweight.base.text import DASH, Grid, number
from commonweight.report.answer import LINES, Answer, Result
from commonweight.report.verdicts import verdict_records
from commonweight.studies.continual.localised import localised_sentence
from commonweight.studies.continual.plan import CLASSIC
from commonweight.studies.continual.report import pair_verdicts, report, signed
from commonweight.studies.run.results import recorded, to_csv
from commonweight.verdicts.rules import INCONCLUSIVE

if TYPE_CHECKING:
    from commonweight.base.choices import PriorRule
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.results import ContinualStudy

AGAINST: tuple[tuple[PriorRule, PriorRule], ...] = (
    ("most_similar", "random"),
    ("most_similar", "least_similar"),
    ("oracle", "random"),
)
"""What shows that similarity helps: approaches with the first prior rule, less those with the second."""

REST = (
    "study.md holds every table",
    "study.json and study.csv every number",
    "accuracies.csv the curves",
    "figures/ the pictures",
)


def answer(study: ContinualStudy) -> Answer:
    """Answer in one screen."""
    single = study.plan.tasks == 1
    question = "Does a similar prior task help the next one, and do tasks share weights?"
    said = [] if single else [*_helps(study), f"{'; '.join([_shares(study), *localised_sentence(study)])}."]
    if single:
        name = next(iter(study.runs))
        question = "How well is the task learned?"
        said = [f"Its accuracy is {_told(study.average_accuracy(name))}."]
    return Answer(question, " ".join(said), _approaches(study), _beware(study), REST)


def result(study: ContinualStudy) -> Result:
    """Give all of it in every form."""
    found = answer(study)
    record = json.loads(study.to_json()) | {"differences": _differences(study)}
    verdicts = [] if study.plan.tasks == 1 or not study.same_tasks else _verdicts(study)
    text = json.dumps({"answer": found.record(), **record, "verdicts": verdicts}, indent=1, ensure_ascii=False)
    return Result(found, [*report(study), *_difference_grid(study)], f"{text}\n", to_csv(record))


def comparisons(study: ContinualStudy) -> dict[tuple[str, str], Estimate]:
    """Subtract the areas of learning curves of approaches that differ in their prior rule alone."""
    runs = [approach for approach in study.plan.runs() if approach.has_priors]
    return {
        (a.name, b.name): study.area(a.name) - study.area(b.name)
        for first, second in AGAINST
        for a in runs
        for b in runs
        if (a.prior, b.prior) == (first, second) and _alike(a, b)
    }


def _alike(a: Approach, b: Approach) -> bool:
    """Whether two approaches differ in their prior rule alone; a similarity is asked only by some rules."""
    similarities = {each.similarity for each in (a, b) if each.by_similarity}
    return (a.kind, a.beta, a.per_layer) == (b.kind, b.beta, b.per_layer) and len(similarities) < 2


def _compared(study: ContinualStudy) -> dict[tuple[str, ...], str]:
    """Write the paired differences by their prior rules; of several kinds and similarities the first."""
    priors = {approach.name: approach.prior for approach in study.plan.runs()}
    shown: dict[tuple[str, ...], str] = {}
    for names, value in comparisons(study).items():
        shown.setdefault(tuple(priors[name] for name in names), f"{' - '.join(names)} {_difference(value)}")
    return shown


def _helps(study: ContinualStudy) -> list[str]:
    shown = _compared(study)
    return [f"Height of the learning curves: {'; '.join(shown.values())}."] if shown else []


def _not_asked(study: ContinualStudy) -> list[str]:
    """Name the approaches to add for what was not asked."""
    runs = [approach for approach in study.plan.runs() if approach.has_priors]
    shown = _compared(study)
    missing = [pair for pair in AGAINST if pair not in shown and (pair[0] != "oracle" or study.known_pairs)]
    if study.plan.tasks == 1 or not missing:
        return []
    words = "classic transfer transfer-random"
    if runs:
        names = dict.fromkeys(rule for pair in missing for rule in pair)
        there = {approach.prior for approach in runs if approach.kind == runs[0].kind}
        words = " ".join(replace(runs[0], prior=rule).name for rule in names if rule not in there)
    asked = "asked in part" if shown else "not asked"
    return [f"Whether similarity helps was {asked}: give continual run --approach {words}, too."]


def _decided(value: Estimate) -> str:
    """Say which of two approaches has the higher curve; nothing where there is no interval."""
    if value.missing:
        return ""
    return "more" if value.low > 0 else "less" if value.high < 0 else INCONCLUSIVE


def _differences(study: ContinualStudy) -> dict[str, Any]:
    """Give the paired differences as plain values."""
    found = {f"{a} - {b}": value for (a, b), value in comparisons(study).items()}
    return {
        name: without_nan({"curve_area": recorded(value), "answer": _decided(value)}) for name, value in found.items()
    }


def _difference_grid(study: ContinualStudy) -> list[Grid]:
    rows = tuple((f"{a} - {b}", signed(value), _decided(value) or DASH) for (a, b), value in comparisons(study).items())
    title = f"Height of the learning curves: differences of approaches, seed by seed (seeds: {study.plan.seeds})"
    return [Grid(title, ("approaches", "difference", "first has"), rows)] if rows else []


def _difference(value: Estimate) -> str:
    answer = _decided(value)
    if not answer:
        return f"{value.value:+.3f}"
    if value.is_pair:
        return f"{value.value:+.3f} ({signed_brief(value)}; {answer})"
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] ({answer})"


def overlap_of_masks(study: ContinualStudy) -> tuple[Estimate, Estimate]:
    """Average the Jaccard index of two masks of the first approach, and that beyond chance, over pairs of tasks."""
    tables = [run.overlap for run in next(iter(study.runs.values())) if run.overlap is not None]
    places = np.triu_indices(study.plan.tasks, 1)
    raw, beyond = (
        Estimate.over_seeds([float(np.mean(level[places])) for level in levels])
        for levels in ([table.pooled for table in tables], [table.corrected.pooled for table in tables])
    )
    return raw, beyond


def _shares(study: ContinualStudy) -> str:
    name = next(iter(study.runs))
    raw, beyond = overlap_of_masks(study)
    if math.isnan(beyond.value):
        return f"Two masks of {name} overlap by {_told(raw)}; what chance gives is not known for these masks"
    return f"Two masks of {name} overlap by {_told(raw)}, {_told(beyond)} beyond chance"


def _approaches(study: ContinualStudy) -> Grid:
    has_classic = CLASSIC in study.runs
    shown = list(study.runs)[: LINES - 4]
    left = len(study.runs) - len(shown)
    rows = tuple(
        (
            name,
            study.average_accuracy(name).brief(),
            study.area(name).brief(),
            signed_brief(study.area(name) - study.area(CLASSIC)) if has_classic and name != CLASSIC else DASH,
            str(study.budget(name)),
        )
        for name in shown
    )
    title = f"Accuracy after the last task, and height of the learning curves (seeds: {study.plan.seeds})"
    return Grid(
        f"{title}{f'; {left} more in the files' if left else ''}",
        ("approach", "accuracy", "curve", "over classic", "steps"),
        rows,
    )


def _beware(study: ContinualStudy) -> tuple[str, ...]:
    said = _not_asked(study)
    if study.plan.seeds == 1:
        said.append("With one seed there is no interval, and a difference decides nothing: take --seeds 5.")
    known = any(found.needs_classic for found in study.plan.runs())
    if known:
        said.append("Steps include the classic run that a similarity needs; compare with classic-double.")
    return tuple(said)


def _verdicts(study: ContinualStudy) -> list[dict[str, Any]]:
    found = []
    for name in study.runs:
        nulls, contrasts, _ = pair_verdicts(study, name)
        found += verdict_records({f"{name}: {words}": each for words, each in {**nulls, **contrasts}.items()})
    return found


def _told(value: Estimate) -> str:
    if value.missing:
        return number(value.value, 3)
    if value.is_pair:
        return f"{number(value.value, 3)} ({value.listed(3)})"
    return f"{number(value.value, 3)} [{number(value.low, 3)}, {number(value.high, 3)}]"


def signed_brief(value: Estimate) -> str:
    """Write a difference for a narrow column."""
    if math.isnan(value.value) or signed(value) == "0":
        return signed(value)
    if value.is_pair:
        return f"{value.replicates[0]:+.3f}, {value.replicates[1]:+.3f}"
    half = value.half_width()
    return f"{value.value:+.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
