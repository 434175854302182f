"""What a study of shortcuts found, in words and tables."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate, signed
from commonweight.base.text import DASH, Block, Grid, number
from commonweight.data.shortcuts import RULES, agreement
from commonweight.fusion.paths import RANDOM
from commonweight.report.files import grid_of
from commonweight.studies.shortcuts.plan import INDEPENDENT, ORIGINAL, START
from commonweight.studies.shortcuts.results import footprint_facts
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE
from commonweight.verdicts.words import OVER, by_chance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from commonweight.studies.shortcuts.results import Of, ShortcutStudy
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

EVEN = 1e-9
"""How much weights may differ that are equal but for rounding."""

SHOWS = {
    "overlaps": "Overlaps of every pair of models",
    "layers": "Overlaps layer by layer",
    "walks": "Accuracies on the way from model to model",
    "triangle": "Accuracies between three models",
    "accuracies": "Accuracies of all models on all sets",
}
"""What figures show, by what their names begin with; behind it may come the Fisher type."""

INTRODUCTION = (
    "Every model was fine-tuned from one start. Some of its training texts hold a planted shortcut that sets their "
    "label. Shared knowledge is the original task: both models' Fishers are measured on untouched texts. Unshared "
    "knowledge is each model's own shortcut, on texts that say the opposite. Same input: both models are measured on "
    "the same conflicting texts, the first model's (same input, first) or the second's (same input, second)."
)

READING = (
    "How to read this. The published claim is that shared exceeds unshared. But unshared compares the models on "
    "different inputs, so part of that contrast is an effect of the input. Shared minus same input shows what remains "
    "when the input is the same. Raw overlaps mix sharing with the noise of a finite sample; corrected ones, which "
    "need folds, do not. An interval is over training seeds (95 %, Student's t, paired). With one seed there is no "
    "such interval, and a difference decides nothing, unless folds give an interval over the examples. That interval "
    "says nothing about other training runs."
)

READING_VERDICTS = (
    "Verdicts are on corrected overlaps. They need the same rows, distinct ones, a shared initialisation, an effective "
    "sample size of {fewest} in every Fisher (of a layer, in that layer), models that learned their shortcut, and an "
    "interval that excludes 0. {without}Intervals are {over}."
)

WITHOUT_FOLDS = (
    "Some Fishers have no folds, so there are no corrected overlaps. Differences of raw ones are shown, but they are "
    "inconclusive: noise lowers raw overlaps, by unequal amounts on different texts. Measure with --folds 8. "
)

CONTROLS = (
    "In the controls, one of the two models is replaced by the start, by the model that learned random labels or, "
    "where there is one, by that from an independent initialisation (mean of both ways). If a contrast is as large "
    "there, it is not about what both models learned. Controls decide nothing."
)


def report(study: ShortcutStudy) -> list[Block]:
    """Lay out a study."""
    pairs = list(combinations(study.plan.shortcuts, 2))
    blocks: list[Block] = [INTRODUCTION, *_readers(study), accuracies(study), *_not_learned(study)]
    for rule in study.tables:
        blocks += [_cells(study, rule, "raw"), _contrasts(study, rule, "raw")]
        if study.has_folds(rule):
            blocks += [_cells(study, rule, "corrected"), _contrasts(study, rule, "corrected")]
        blocks += verdicts(study, rule)
    if len(study.tables) > 1:
        blocks.append(_fisher_types(study))
    for rule in study.tables:
        for pair in pairs:
            by_layer = {layer: study.cells(rule, layer)[pair] for layer in study.layers}
            title = f"Raw Fisher overlap of {pair[0]} and {pair[1]} layer by layer, Fisher type {rule}"
            blocks += [_estimates(title, "layer", by_layer), *layer_verdicts(study, rule, pair)]
    blocks += [_walks(study, pair) for pair in pairs]
    if study.triangles:
        blocks.append(_triangle(study))
    for rule in study.tables:
        blocks += [_controls(study, rule), _footprints(study, rule)]
    for rule, tables in study.tables.items():
        effective = [pair for table in tables for pair in table.effective_sample_size.items()]
        few = sorted({name for name, value in effective if not value >= SMALLEST_EFFECTIVE})
        if few:
            blocks.append(
                f"Fisher type {rule}: effective sample size below {SMALLEST_EFFECTIVE}, so a few rows carry the "
                f"Fisher: {', '.join(few)}. Their overlaps decide nothing."
            )
    return [*blocks, *_alignment(study), READING]


def figure_links(folder: Path, figures: Sequence[Path]) -> tuple[str, ...]:
    """List the figures as Markdown."""
    links = []
    for path in (path for path in figures if path.suffix == ".png"):
        what, _, rule = path.stem.partition("-")
        words = SHOWS[what] + (f", Fisher type {rule}" if rule else "")
        links.append(f"- [{words}]({path.relative_to(folder).as_posix()})")
    return ("Figures (beside each the same as PDF and SVG):", *links) if links else ()


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
    return walks[0]["points"], _mean_accuracy(walks)


def triangle_accuracy(study: ShortcutStudy) -> tuple[list[tuple[float, ...]], Mapping[str, list[float]]]:
    """Average the accuracies over the triangle of the first three models over the seeds."""
    if not study.triangles:
        raise UsageError(
            f"a triangle lies between three models, and the study has {len(study.plan.shortcuts)} shortcuts; draw the "
            "walk between the two"
        )
    return [tuple(point) for point in study.triangles[0]["points"]], _mean_accuracy(study.triangles)


def _mean_accuracy(found: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Set -> accuracy at every point, mean over the seeds."""
    return {
        name: [fmean(values) for values in zip(*(each["accuracy"][name] for each in found), strict=True)]
        for name in found[0]["accuracy"]
    }


def _estimates(
    title: str,
    corner: str,
    found: Mapping[str, Mapping[str, Estimate]],
    write: Callable[[Estimate], str] = Estimate.short,
) -> Grid:
    return grid_of(
        title, corner, {row: {name: write(value) for name, value in each.items()} for row, each in found.items()}
    )


def _cells(study: ShortcutStudy, rule: str, of: Of) -> Grid:
    cells = {", ".join(pair): found for pair, found in study.cells(rule, of=of).items()}
    return _estimates(f"{of.capitalize()} Fisher overlap of two models, Fisher type {rule}", "models", cells)


def _contrasts(study: ShortcutStudy, rule: str, of: Of) -> Grid:
    contrasts = {", ".join(pair): found for pair, found in study.contrasts(rule, of=of).items()}
    return _estimates(f"{of.capitalize()} contrasts, Fisher type {rule}", "models", contrasts, signed)


def _fisher_types(study: ShortcutStudy) -> Grid:
    """The published contrast under every Fisher type, side by side."""
    found = {f"Fisher type {rule}": study.contrasts(rule) for rule in study.tables}
    rows = {
        ", ".join(pair): {rule: contrasts[pair]["shared − unshared"] for rule, contrasts in found.items()}
        for pair in combinations(study.plan.shortcuts, 2)
    }
    title = "Does the conclusion depend on the Fisher type? Shared − unshared, raw"
    return _estimates(title, "models", rows, signed)


def _readers(study: ShortcutStudy) -> list[str]:
    """One sentence for every model whose shortcut reads something in the rows of another's."""
    sentences = []
    for first, second in combinations(study.plan.shortcuts, 2):
        for reader, rows in ((first, second), (second, first)):
            found = agreement(RULES[rows], RULES[reader])
            if found.silent < 1:
                sentences.append(
                    f"{reader} reads {rows}'s rows: same label {found.same:.3f}, opposite {found.opposite:.3f}, "
                    f"nothing {found.silent:.3f}. So what {first} and {second} share there can be a shortcut, not only "
                    "the task."
                )
    return sentences


def _not_learned(study: ShortcutStudy) -> list[str]:
    """One sentence for every model that did not learn its own shortcut."""
    return [
        "{} did not learn its shortcut (accuracy {:.3f}, a constant answer {:.3f}): its overlaps mean nothing.".format(
            code, *study.own_accuracy(code)
        )
        for code in study.without_shortcut
    ]


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
            "inputs, labels and architecture alone bring it about."
        )
    return said


def _walks(study: ShortcutStudy, pair: Pair) -> Grid:
    """Accuracies at every point between two models, and as far from each in a random direction."""
    a, b = pair
    rows = []
    for start, end, as_far_as in ((a, b, None), (a, RANDOM, b), (b, RANDOM, a)):
        points, accuracy = walk_accuracy(study, start, end, as_far_as)
        rows += [
            (f"{start} to {end}, {name}", *(f"{value:.3f}" for value in values)) for name, values in accuracy.items()
        ]
    title = f"Accuracy on the way from {a} to {b}, and as far in a random direction (mean over seeds)"
    return Grid(title, ("way, rows", *(f"{point:.2f}" for point in points)), tuple(rows))


def _triangle(study: ShortcutStudy) -> Grid:
    """Accuracies at the corners of the triangle, the middles of its sides, and its centre."""
    points, accuracy = triangle_accuracy(study)
    corners = study.triangles[0]["corners"]
    rows = {}
    for place, point in enumerate(points):
        among = {corner: weight for corner, weight in zip(corners, point, strict=True) if weight > 0}
        if max(among.values()) - min(among.values()) < EVEN:
            rows["+".join(among)] = {name: f"{found[place]:.3f}" for name, found in accuracy.items()}
    return grid_of(
        f"Accuracy of the averages of {', '.join(corners)} (corners, middles and centre of their triangle; mean over "
        "seeds)",
        "average of",
        {name: rows[name] for name in sorted(rows, key=lambda name: name.count("+"))},
    )


def _footprints(study: ShortcutStudy, rule: str) -> Grid:
    seeds = [footprint_facts(table) for table in study.tables[rule]]
    rows = {}
    for name in seeds[0]:
        trace, effective = (fmean(found[name][key] for found in seeds) for key in ("trace", "effective_sample_size"))
        rows[name] = {
            "trace": f"{trace:.4g}",
            "effective sample size": DASH if math.isnan(effective) else f"{effective:.1f}",
        }
    return grid_of(f"Fishers, Fisher type {rule} (mean over seeds)", "model/rows", rows)


def _controls(study: ShortcutStudy, rule: str) -> Grid:
    """The start and the random-label model beside the models, on originals."""
    tables = study.tables[rule]
    models = {
        place: study.plan.footprints[name][0]
        for place, name in enumerate(tables[0].names)
        if study.plan.footprints[name][1] == ORIGINAL
    }
    return grid_of(
        f"Controls: raw Fisher overlap of every two models on the originals, Fisher type {rule} (mean over seeds)",
        "",
        {
            model: {other: number(fmean(float(table.pooled[i, j]) for table in tables)) for j, other in models.items()}
            for i, model in models.items()
        },
    )


def verdicts(study: ShortcutStudy, rule: str) -> list[Block]:
    """Lay out what may be said of every contrast of every pair of models."""
    found = {
        f"{', '.join(pair)}: {name}": verdict
        for pair, each in study.verdicts(rule).items()
        for name, verdict in each.items()
    }
    first = next(iter(found.values()))
    rows = {
        name: {"verdict": verdict.answer, "difference, and why": verdict.brief}
        | {control: signed(value) for control, value in verdict.controls.items()}
        for name, verdict in found.items()
    }
    without = "" if study.has_folds(rule) else WITHOUT_FOLDS
    reading = READING_VERDICTS.format(fewest=SMALLEST_EFFECTIVE, without=without, over=OVER[first.estimate.over])
    said = [reading, *([CONTROLS] if first.controls else []), *_expected(list(found.values()))]
    return [grid_of(f"Verdicts, Fisher type {rule}", "contrast", rows), " ".join(said)]


def layer_verdicts(study: ShortcutStudy, rule: str, pair: Pair) -> list[Block]:
    """Lay out what may be said of the contrasts of one pair of models layer by layer."""
    found = {layer: study.verdicts(rule, layer)[pair] for layer in study.layers}
    grid = grid_of(
        f"Verdicts on {pair[0]} and {pair[1]} layer by layer, Fisher type {rule}",
        "layer",
        {
            layer: {name: f"{signed(verdict.estimate)}, {verdict.short}" for name, verdict in each.items()}
            for layer, each in found.items()
        },
    )
    return [grid, *_expected([verdict for each in found.values() for verdict in each.values()])]


def _expected(found: Sequence[Verdict]) -> list[str]:
    looked = sum(verdict.estimate.missing is None for verdict in found)
    return [by_chance(looked, "contrasts")] if looked else []
