"""The verdicts of a study of shortcuts: which contrasts say something, with their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.decision.verdict import FEWEST_EFFECTIVE, OVER, by_chance
from commonweight.text import Block, Grid
from commonweight.view.estimates import signed
from commonweight.view.verdicts import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.decision.verdict import Verdict
    from commonweight.overlaps.estimate import Estimate
    from commonweight.studies.shortcuts.results import ShortcutStudy

READING = (
    "Verdicts are on corrected overlaps. They take the same rows, distinct ones, a common start, {fewest} effective "
    "examples in every Fisher (layer by layer, in the layer's own), models that learned their shortcut, and an "
    "interval that excludes 0. "
    "{without}Intervals are {over}."
)
WITHOUT_FOLDS = (
    "Some Fishers have no folds, so there are no corrected overlaps. Differences of raw ones are shown and cannot say: "
    "noise lowers them, and not alike on different texts. Measure with --folds 8. "
)
CONTROLS = (
    "The controls are the same contrast with the start, the model that learned random labels or, where there is one, "
    "that from an independent start in place of one of the two (mean of both ways): what is as large there is not "
    "about what both models learned. They decide nothing."
)


def verdicts(study: ShortcutStudy, rule: str) -> list[Block]:
    """Lay out what may be said of every contrast of every pair of models.

    Args:
        study: What was found.
        rule: A label rule of the plan.

    Returns:
        A row per pair and contrast with its controls, and how to read it.
    """
    found = {(pair, name): verdict for pair, each in study.verdicts(rule).items() for name, verdict in each.items()}
    first = next(iter(found.values()))

    def row(pair: tuple[str, str], name: str, verdict: Verdict) -> tuple[str, ...]:
        controls = (_shown(verdict.controls[each]) for each in first.controls)
        return (f"{pair[0]}, {pair[1]}: {name}", verdict.answer, verdict.brief, *controls)

    grid = Grid(
        f"Verdicts, label rule {rule}",
        ("contrast", "verdict", "difference, and why", *first.controls),
        tuple(row(*key, verdict) for key, verdict in found.items()),
    )
    without = "" if study.has_folds(rule) else WITHOUT_FOLDS
    reading = READING.format(fewest=FEWEST_EFFECTIVE, without=without, over=OVER[first.estimate.over])
    return [grid, " ".join([reading, *([CONTROLS] if first.controls else []), *_expected(list(found.values()))])]


def layer_verdicts(study: ShortcutStudy, rule: str, pair: tuple[str, str]) -> list[Block]:
    """Lay out what may be said of the contrasts of one pair of models layer by layer.

    Args:
        study: What was found.
        rule: A label rule of the plan.
        pair: Codes of two shortcuts.

    Returns:
        A row per layer with difference and verdict, and how many of these to expect by chance.
    """
    found = {layer: study.verdicts(rule, layer)[pair] for layer in study.layers}
    names = list(next(iter(found.values())))

    def cell(verdict: Verdict) -> str:
        return f"{signed(verdict.estimate)}, {short(verdict)}"

    grid = Grid(
        f"Verdicts on {pair[0]} and {pair[1]} layer by layer, label rule {rule}",
        ("layer", *names),
        tuple((layer, *(cell(each[name]) for name in names)) for layer, each in found.items()),
    )
    return [grid, *_expected([verdict for each in found.values() for verdict in each.values()])]


def _expected(found: Sequence[Verdict]) -> list[str]:
    looked = sum(verdict.estimate.missing is None for verdict in found)
    return [by_chance(looked, "contrasts")] if looked else []


def _shown(control: str | Estimate) -> str:
    return control if isinstance(control, str) else signed(control)
