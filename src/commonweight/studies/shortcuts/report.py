"""What a study of shortcuts found, in words and tables."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.base.estimate import signed
from commonweight.base.text import DASH, Block, Grid, number
from commonweight.data.shortcuts import RULES, agreement
from commonweight.fusion.paths import RANDOM
from commonweight.studies.shortcuts.plan import INDEPENDENT, ORIGINAL, START
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE
from commonweight.verdicts.words import OVER, by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.studies.shortcuts.results import Of, ShortcutStudy
    from commonweight.verdicts.verdict import Verdict


EVEN = 1e-9
"""How much weights may differ that are equal but for rounding."""


INTRODUCTION = (
    "Every model was fine-tuned from one start on texts of which some hold a planted shortcut that sets their label. "
    "Shared knowledge is the original task: both models' Fishers on untouched texts. Unshared knowledge is each "
    "model's own shortcut, on texts that say the opposite. Same input: both models on the same conflicting texts, the "
    "first model's (same input, first) or the second's (same input, second)."
)


READING = (
    "How to read this. Shared above unshared is the published claim; but unshared compares the models on different "
    "inputs, so part of that contrast is an effect of the input. What remains when the input is the same is shared "
    "minus same input. Raw overlaps mix sharing with the noise of a finite sample; corrected ones, which need folds, "
    "do not. An interval is over training seeds (95 %, Student's t, paired). With one seed there is none over seeds: "
    "then a difference decides nothing, unless folds give one over the examples. That one says nothing of another "
    "training."
)


def report(study: ShortcutStudy) -> list[Block]:
    """Lay out a study."""
    blocks: list[Block] = [INTRODUCTION, *_readers(study), accuracies(study), *_not_learned(study)]
    for rule in study.tables:
        blocks += [_cells(study, rule, "raw"), _contrasts(study, rule, "raw")]
        if study.has_folds(rule):
            blocks += [_cells(study, rule, "corrected"), _contrasts(study, rule, "corrected")]
        blocks += verdicts(study, rule)
    if len(study.tables) > 1:
        blocks.append(_fisher_types(study))
    for rule in study.tables:
        for pair in _pairs(study):
            blocks += [_layers(study, rule, pair), *layer_verdicts(study, rule, pair)]
    blocks += [_walks(study, pair) for pair in _pairs(study)]
    if study.triangles:
        blocks.append(_triangle(study))
    for rule in study.tables:
        blocks += [_controls(study, rule), _footprints(study, rule)]
    for rule, tables in study.tables.items():
        effective = [pair for table in tables for pair in table.effective_sample_size.items()]
        few = sorted({name for name, value in effective if not value >= SMALLEST_EFFECTIVE})
        if few:
            blocks.append(
                f"Fisher type {rule}: effective sample size below {SMALLEST_EFFECTIVE}, so that a few rows carry the "
                f"Fisher: {', '.join(few)}. Their overlaps decide nothing."
            )
    return [*blocks, *_alignment(study), READING]


def accuracies(study: ShortcutStudy) -> Grid:
    """Lay out the accuracies of all models on all sets, means over the seeds."""
    models, sets = list(study.scores[0]), list(study.constants[0])
    constant = [fmean(found[name] for found in study.constants) for name in sets]
    return Grid(
        "Accuracy (mean over seeds)",
        ("model", *sets),
        tuple((model, *(f"{study.accuracy(model, data).value:.3f}" for data in sets)) for model in models),
        (("best constant answer", *(f"{value:.3f}" for value in constant)),),
    )


def walk_accuracy(
    study: ShortcutStudy, start: str, end: str, as_far_as: str | None = None
) -> tuple[list[float], Mapping[str, list[float]]]:
    """Average the accuracies along a walk through weight space over the seeds."""
    walks = []
    for found in study.paths:
        matching = (walk for walk in found if (walk["from"], walk["to"]) == (start, end))
        walks += [walk for walk in matching if as_far_as in {None, walk.get("as_far_as")}][:1]
    if len(walks) < len(study.paths):
        there = sorted({f"{w['from']} to {w['to']}" for found in study.paths for w in found})
        raise UsageError(f"no walk from {start} to {end}; there are {', '.join(there)}")
    return walks[0]["points"], {
        name: [fmean(values) for values in zip(*(walk["accuracy"][name] for walk in walks), strict=True)]
        for name in walks[0]["accuracy"]
    }


def triangle_accuracy(study: ShortcutStudy) -> tuple[list[tuple[float, ...]], Mapping[str, list[float]]]:
    """Average the accuracies over the triangle of the first three models over the seeds."""
    if not study.triangles:
        raise UsageError(
            f"a triangle lies between three models, and the study has {len(study.plan.shortcuts)} shortcuts; draw the "
            "walk between the two"
        )
    first = study.triangles[0]
    return [tuple(point) for point in first["points"]], {
        name: [fmean(values) for values in zip(*(found["accuracy"][name] for found in study.triangles), strict=True)]
        for name in first["accuracy"]
    }


def _cells(study: ShortcutStudy, rule: str, of: Of) -> Grid:
    cells = study.cells(rule, of=of)
    names = list(next(iter(cells.values())))
    what = f"{of.capitalize()} Fisher overlap"
    return Grid(
        f"{what} of two models, Fisher type {rule}",
        ("models", *names),
        tuple((_pair(pair), *(found[name].short() for name in names)) for pair, found in cells.items()),
    )


def _contrasts(study: ShortcutStudy, rule: str, of: Of) -> Grid:
    contrasts = study.contrasts(rule, of=of)
    names = list(next(iter(contrasts.values())))
    what = f"{of.capitalize()} contrasts"
    return Grid(
        f"{what}, Fisher type {rule}",
        ("models", *names),
        tuple((_pair(pair), *(signed(found[name]) for name in names)) for pair, found in contrasts.items()),
    )


def _fisher_types(study: ShortcutStudy) -> Grid:
    """The published contrast under every Fisher type, side by side."""
    found = {rule: study.contrasts(rule) for rule in study.tables}
    return Grid(
        "Does the conclusion depend on the Fisher type? Shared − unshared, raw",
        ("models", *(f"Fisher type {rule}" for rule in found)),
        tuple(
            (_pair(pair), *(signed(contrasts[pair]["shared − unshared"]) for contrasts in found.values()))
            for pair in _pairs(study)
        ),
    )


def _readers(study: ShortcutStudy) -> list[str]:
    """One sentence for every model whose shortcut reads something in the rows of another's."""
    sentences = []
    for first, second in _pairs(study):
        for reader, rows in ((first, second), (second, first)):
            found = agreement(RULES[rows], RULES[reader])
            if found.silent < 1:
                sentences.append(
                    f"{reader} reads {rows}'s rows: same label {found.same:.3f}, opposite {found.opposite:.3f}, "
                    f"nothing {found.silent:.3f}; what {first} and {second} share there can be a shortcut, not only "
                    "the task."
                )
    return sentences


def _not_learned(study: ShortcutStudy) -> list[str]:
    """One sentence for every model that did not learn its own shortcut."""
    sentences = []
    for code in study.without_shortcut:
        reached, constant = (f"{value:.3f}" for value in study.own_accuracy(code))
        sentences.append(
            f"{code} did not learn its shortcut (accuracy {reached}, a constant answer {constant}): its cells say "
            "nothing."
        )
    return sentences


def _alignment(study: ShortcutStudy) -> list[str]:
    """Whether models share an initialisation, and that the one from an independent initialisation shares none."""
    found = next(iter(study.tables.values()))[0].alignment
    apart = [name for name in found.names if study.plan.footprints[name][0] == INDEPENDENT]
    others = [name for name in found.names if name not in apart]
    said = [found.of(others).sentence(start=START)]
    if apart:
        code = study.plan.shortcuts[0]
        reached, constant = study.accuracy(INDEPENDENT, f"{code} dev").value, study.own_accuracy(code)[1]
        readings = sorted({found.reading(apart[0], name) for name in others})
        nearest = min(float(found.distance[found.names.index(apart[0]), found.names.index(name)]) for name in others)
        said.append(
            f"{INDEPENDENT} was trained as {code} was, from weights drawn anew (accuracy on {code} dev {reached:.3f}, "
            f"a constant answer {constant:.3f}). With the other models: {' or '.join(readings)} (relative weight "
            f"distance at least {nearest:.2f}). Without a shared initialisation its overlap with them is no sharing: "
            "inputs, "
            "labels and architecture alone bring it about."
        )
    return said


def _layers(study: ShortcutStudy, rule: str, pair: tuple[str, str]) -> Grid:
    found = {layer: study.cells(rule, layer)[pair] for layer in study.layers}
    names = list(next(iter(found.values())))
    return Grid(
        f"Raw Fisher overlap of {pair[0]} and {pair[1]} layer by layer, Fisher type {rule}",
        ("layer", *names),
        tuple((layer, *(cells[name].short() for name in names)) for layer, cells in found.items()),
    )


def _walks(study: ShortcutStudy, pair: tuple[str, str]) -> Grid:
    """Accuracies at every point between two models, and as far from each in a random direction."""
    a, b = pair
    ways = {
        f"{a} to {b}": walk_accuracy(study, a, b),
        f"{a} to random": walk_accuracy(study, a, RANDOM, b),
        f"{b} to random": walk_accuracy(study, b, RANDOM, a),
    }
    points = next(iter(ways.values()))[0]
    return Grid(
        f"Accuracy on the way from {a} to {b}, and as far in a random direction (mean over seeds)",
        ("way, rows", *(f"{point:.2f}" for point in points)),
        tuple(
            (f"{way}, {rows}", *(f"{value:.3f}" for value in values))
            for way, (_, accuracy) in ways.items()
            for rows, values in accuracy.items()
        ),
    )


def _triangle(study: ShortcutStudy) -> Grid:
    """Accuracies at the corners of the triangle, the middles of its sides, and its centre."""
    points, accuracy = triangle_accuracy(study)
    corners = study.triangles[0]["corners"]
    rows: dict[int, list[tuple[str, ...]]] = {1: [], 2: [], 3: []}
    for place, point in enumerate(points):
        among = {corner: weight for corner, weight in zip(corners, point, strict=True) if weight > 0}
        if max(among.values()) - min(among.values()) < EVEN:
            values = (f"{found[place]:.3f}" for found in accuracy.values())
            rows[len(among)].append(("+".join(among), *values))
    return Grid(
        f"Accuracy of the averages of {', '.join(corners)} (corners, middles and centre of their triangle; mean over "
        "seeds)",
        ("average of", *accuracy),
        (*rows[1], *rows[2], *rows[3]),
    )


def _footprints(study: ShortcutStudy, rule: str) -> Grid:
    tables = study.tables[rule]
    traces = [np.diagonal(sum(table.terms.values())) for table in tables]
    rows = []
    for place, name in enumerate(tables[0].names):
        effective = fmean(table.effective_sample_size[name] for table in tables)
        rows.append((
            name,
            f"{fmean(float(trace[place]) for trace in traces):.4g}",
            DASH if math.isnan(effective) else f"{effective:.1f}",
        ))
    return Grid(
        f"Fishers, Fisher type {rule} (mean over seeds)", ("model/rows", "trace", "effective sample size"), tuple(rows)
    )


def _controls(study: ShortcutStudy, rule: str) -> Grid:
    """The start and the random-label model beside the models, on originals."""
    tables = study.tables[rule]
    of = study.plan.footprints
    others = {name: of[name][0] for name in tables[0].names if of[name][1] == ORIGINAL}
    return Grid(
        f"Controls: raw Fisher overlap of every two models on the originals, Fisher type {rule} (mean over seeds)",
        ("", *others.values()),
        tuple((model, *(number(_mean(tables, a, b)) for b in others)) for a, model in others.items()),
    )


def _mean(tables: Sequence[OverlapTable], a: str, b: str) -> float:
    return fmean(float(table.pooled[table.names.index(a), table.names.index(b)]) for table in tables)


def _pairs(study: ShortcutStudy) -> list[tuple[str, str]]:
    return list(combinations(study.plan.shortcuts, 2))


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]}, {pair[1]}"


READING_VERDICTS = (
    "Verdicts are on corrected overlaps. They need the same rows, distinct ones, a shared initialisation, an effective "
    "sample size of {fewest} in every Fisher (of a layer, in that layer), models that learned their shortcut, and an "
    "interval that excludes 0. {without}Intervals are {over}."
)


WITHOUT_FOLDS = (
    "Some Fishers have no folds, so there are no corrected overlaps. Differences of raw ones are shown and "
    "inconclusive: noise lowers them, and not alike on different texts. Measure with --folds 8. "
)


CONTROLS = (
    "The controls are the same contrast with the start, the model that learned random labels or, where there is one, "
    "that from an independent initialisation in place of one of the two (mean of both ways): what is as large there "
    "is not about what both models learned. They decide nothing."
)


def verdicts(study: ShortcutStudy, rule: str) -> list[Block]:
    """Lay out what may be said of every contrast of every pair of models."""
    found = {(pair, name): verdict for pair, each in study.verdicts(rule).items() for name, verdict in each.items()}
    first = next(iter(found.values()))

    def row(pair: tuple[str, str], name: str, verdict: Verdict) -> tuple[str, ...]:
        controls = (signed(verdict.controls[each]) for each in first.controls)
        return (f"{pair[0]}, {pair[1]}: {name}", verdict.answer, verdict.brief, *controls)

    grid = Grid(
        f"Verdicts, Fisher type {rule}",
        ("contrast", "verdict", "difference, and why", *first.controls),
        tuple(row(*key, verdict) for key, verdict in found.items()),
    )
    without = "" if study.has_folds(rule) else WITHOUT_FOLDS
    reading = READING_VERDICTS.format(fewest=SMALLEST_EFFECTIVE, without=without, over=OVER[first.estimate.over])
    return [grid, " ".join([reading, *([CONTROLS] if first.controls else []), *_expected(list(found.values()))])]


def layer_verdicts(study: ShortcutStudy, rule: str, pair: tuple[str, str]) -> list[Block]:
    """Lay out what may be said of the contrasts of one pair of models layer by layer."""
    found = {layer: study.verdicts(rule, layer)[pair] for layer in study.layers}
    names = list(next(iter(found.values())))

    def cell(verdict: Verdict) -> str:
        return f"{signed(verdict.estimate)}, {verdict.short}"

    grid = Grid(
        f"Verdicts on {pair[0]} and {pair[1]} layer by layer, Fisher type {rule}",
        ("layer", *names),
        tuple((layer, *(cell(each[name]) for name in names)) for layer, each in found.items()),
    )
    return [grid, *_expected([verdict for each in found.values() for verdict in each.values()])]


def _expected(found: Sequence[Verdict]) -> list[str]:
    looked = sum(verdict.estimate.missing is None for verdict in found)
    return [by_chance(looked, "contrasts")] if looked else []
