"""What a study of shortcuts found, in words and tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.overlaps.layout import FEW_EXAMPLES
from commonweight.text import DASH, Block, Grid, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.studies.shortcuts.contrasts import Estimate
    from commonweight.studies.shortcuts.results import ShortcutStudy

INTRODUCTION = (
    "Every model was fine-tuned from one start on texts of which some hold a planted shortcut that sets their label. "
    "Shared knowledge is the original task: both models' Fishers on untouched texts. Unshared knowledge is each "
    "model's own shortcut, on texts that say the opposite. Same input: both models on the same contradicted texts, of "
    "which only one of them knows the shortcut."
)

READING = (
    "How to read this. Shared above unshared is the published claim; but unshared compares the models on different "
    "inputs, so part of that contrast is an effect of the input. What remains when the input is the same is shared "
    "minus same input. The overlaps are raw: they mix sharing with the noise of a finite sample. An interval is over "
    "training seeds (95 %, Student's t, paired); with one seed there is none, and then a difference decides nothing."
)


def report(study: ShortcutStudy) -> list[Block]:
    """Lay out a study.

    Args:
        study: What was found.

    Returns:
        Paragraphs and tables, from top to bottom.
    """
    blocks: list[Block] = [INTRODUCTION, accuracies(study)]
    for rule in study.tables:
        blocks += [_cells(study, rule), _contrasts(study, rule)]
    blocks += [_layers(study, rule) for rule in study.tables]
    blocks += [_controls(study, rule) for rule in study.tables]
    for rule, tables in study.tables.items():
        effective = [pair for table in tables for pair in table.effective_examples.items()]
        few = sorted({name for name, value in effective if not value >= FEW_EXAMPLES})
        if few:
            blocks.append(
                f"Label rule {rule}: below {FEW_EXAMPLES} effective examples, so that a few rows carry the Fisher: "
                f"{', '.join(few)}. Their overlaps decide nothing."
            )
    sentence = next(iter(study.tables.values()))[0].alignment.sentence()
    return [*blocks, sentence, READING]


def accuracies(study: ShortcutStudy) -> Grid:
    """Lay out the accuracies of all models on all sets, means over the seeds.

    Args:
        study: What was found.

    Returns:
        One row per model, and the best constant answer below.
    """
    models, sets = list(study.scores[0]), list(study.constants[0])
    constant = [sum(found[name] for found in study.constants) / len(study.constants) for name in sets]
    return Grid(
        "Accuracy (mean over seeds)",
        ("model", *sets),
        tuple((model, *(f"{study.accuracy(model, data).mean:.3f}" for data in sets)) for model in models),
        (("best constant answer", *(f"{value:.3f}" for value in constant)),),
    )


def estimate(value: Estimate) -> str:
    """Write an estimate with its interval.

    Args:
        value: The estimate.

    Returns:
        ``.8000 ± .0100``; without an interval the mean alone.
    """
    if math.isnan(value.half_width):
        return number(value.mean)
    return f"{number(value.mean)} ± {value.half_width:.4f}"


def _cells(study: ShortcutStudy, rule: str) -> Grid:
    cells = study.cells(rule)
    names = list(next(iter(cells.values())))
    return Grid(
        f"Fisher overlap of two models, label rule {rule}",
        ("models", *names),
        tuple((_pair(pair), *(estimate(found[name]) for name in names)) for pair, found in cells.items()),
    )


def _contrasts(study: ShortcutStudy, rule: str) -> Grid:
    contrasts = study.contrasts(rule)
    names = list(next(iter(contrasts.values())))
    return Grid(
        f"Contrasts, label rule {rule}",
        ("models", *names),
        tuple((_pair(pair), *(_signed(found[name]) for name in names)) for pair, found in contrasts.items()),
    )


def _signed(value: Estimate) -> str:
    if math.isnan(value.mean):
        return DASH
    half = "" if math.isnan(value.half_width) else f" ± {value.half_width:.4f}"
    return f"{value.mean:+.4f}{half}"


def _layers(study: ShortcutStudy, rule: str) -> Grid:
    pairs = list(study.cells(rule))
    heads = tuple(f"{_pair(pair)}, {cell}" for pair in pairs for cell in ("shared", "unshared"))
    rows = []
    for layer in study.layers:
        found = study.cells(rule, layer)
        rows.append((layer, *(number(found[p][cell].mean) for p in pairs for cell in ("shared", "unshared"))))
    return Grid(f"Fisher overlap layer by layer, label rule {rule} (mean over seeds)", ("layer", *heads), tuple(rows))


def _controls(study: ShortcutStudy, rule: str) -> Grid:
    """The start and the random-label model beside the models, on originals."""
    tables = study.tables[rule]
    others = [name for name in tables[0].names if name.endswith("/original")]
    return Grid(
        f"Controls on the originals, label rule {rule} (mean over seeds)",
        ("", *(name.partition("/")[0] for name in others)),
        tuple((a.partition("/")[0], *(number(_mean(tables, a, b)) for b in others)) for a in others),
    )


def _mean(tables: Sequence[object], a: str, b: str) -> float:
    values = [float(t.pooled[t.names.index(a), t.names.index(b)]) for t in tables]  # type: ignore[attr-defined]
    return sum(values) / len(values)


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]}, {pair[1]}"
