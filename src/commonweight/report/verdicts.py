"""The verdicts of a table of overlaps, in words and small grids."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from commonweight.base.progress import track
from commonweight.base.text import Block, Grid
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.verdicts.rules import ABOVE, LESS, MORE
from commonweight.verdicts.words import OVER, SHORT, by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.rules import Answer
    from commonweight.verdicts.verdict import Verdict

WITHOUT_FOLDS = (
    "No verdicts: they need intervals, and intervals need folds. Measure with folds, such as --folds 8 or "
    "fisher(..., folds=8). If the footprints have folds, compare again without --no-intervals or intervals=False."
)
READING = (
    "One overlap alone is above its null or not: that never says how much is shared. Which pair shares more is decided "
    "on corrected overlaps of the same source rows, of models with a shared initialisation. In brackets: what a "
    "layer lacks. Intervals are {over}."
)
MOST_CONTRASTS = 12


class Contrast(NamedTuple):
    """Two pairs of footprints to compare."""

    first: Pair
    second: Pair
    same_rows: bool
    """Whether both were measured on the same source rows."""

    question: str = ""
    """What it answers, where somebody asks it; empty for one of all that can be made."""


def verdict_blocks(table: OverlapTable, contrasts: Sequence[Contrast] = (), by: str | int = "layer") -> list[Block]:
    """Lay out what may be said of a table: every overlap against its null, and which pairs share more."""
    if table.kind not in IMPORTANCES:
        return []
    if table.resampled is None:
        return [WITHOUT_FOLDS]
    if isinstance(by, int):
        table = table.roll_up(by)
    return [*_nulls(table), *_contrasts(table, contrasts), READING.format(over=OVER["folds"])]


def counted(verdicts: Sequence[Verdict], answers: Sequence[Answer]) -> str:
    """Count verdicts by their answer."""
    found = Counter(verdict.answer for verdict in verdicts)
    if len(answers) == 1:
        return f"{found[answers[0]]} of {len(verdicts)}"
    return ", ".join(f"{found[answer]} {SHORT[answer]}" for answer in answers) + f" of {len(verdicts)}"


def verdict_grids(
    question: str,
    head: tuple[str, str, str],
    asked: Mapping[str, Mapping[str | None, Verdict]],
    answers: Sequence[Answer],
    *,
    numbered: bool = False,
) -> list[Block]:
    """Lay out verdicts on all weights together with their reasons, and below them those of every layer."""
    names = [f"{place}. {name}" if numbered else name for place, name in enumerate(asked, 1)]
    columns = [f"{place}." if numbered else name for place, name in enumerate(asked, 1)]
    layers = [layer for layer in next(iter(asked.values())) if layer is not None]
    rows = tuple(
        (name, by[None].answer, counted([by[layer] for layer in layers], answers), by[None].brief)
        for name, by in zip(names, asked.values(), strict=True)
    )
    by_layer = tuple((layer or WHOLE, *(by[layer].short for by in asked.values())) for layer in layers)
    return [
        Grid(f"Verdicts: {question}", (head[0], "all weights together", *head[1:]), rows),
        Grid(f"Verdicts by layer: {question}", ("layer", *columns), by_layer),
    ]


def verdict_records(asked: Mapping[str, Mapping[str | None, Verdict]]) -> list[dict[str, Any]]:
    """Give verdicts as plain values: what was asked, the answer, the number, what is lacking."""
    return [
        {
            "asked": words,
            "layer": layer,
            "answer": verdict.answer,
            "value": verdict.estimate.value,
            "low": verdict.estimate.low,
            "high": verdict.estimate.high,
            "lacking": [each.code for each in verdict.lacking],
            "beware": [each.code for each in verdict.beware],
        }
        for words, by in asked.items()
        for layer, verdict in by.items()
    ]


def nulls_of(table: OverlapTable) -> dict[str, dict[str | None, Verdict]]:
    """Judge every pair of a table, layer by layer."""
    return {
        f"{a} and {b}": {layer: table.verdict((a, b), layer=layer) for layer in (*table.layers, None)}
        for a, b in track([*combinations(table.names, 2)], "verdicts", unit="pair")
    }


def contrasts_of(table: OverlapTable, every: Sequence[Contrast]) -> dict[str, dict[str | None, Verdict]]:
    """Judge contrasts of a table, layer by layer."""
    return {
        f"{' and '.join(first)} against {' and '.join(second)}": {
            layer: table.verdict(first, second, layer=layer, same_rows=same_rows) for layer in (*table.layers, None)
        }
        for first, second, same_rows, _ in track(every, "verdicts on contrasts", unit="contrast")
    }


def _nulls(table: OverlapTable) -> list[Block]:
    asked = nulls_of(table)
    return [
        *verdict_grids("above its null?", ("pair", "layers above", "corrected - null, and why"), asked, [ABOVE]),
        by_chance(len(asked) * (1 + len(table.layers)), "nulls"),
    ]


def _contrasts(table: OverlapTable, every: Sequence[Contrast]) -> list[Block]:
    shown = every[:MOST_CONTRASTS]
    if not shown:
        return []
    asked = contrasts_of(table, shown)
    head = ("pair against pair", "layers", "corrected, first - second, and why")
    blocks = [
        *verdict_grids("which pair shares more?", head, asked, [MORE, LESS], numbered=True),
        by_chance(len(shown) * (1 + len(table.layers)), "contrasts"),
    ]
    if len(every) > len(shown):
        blocks.append(
            f"{len(shown)} of {len(every)} contrasts are shown; any other is table.verdict((A, B), (C, D), "
            "same_rows=...)."
        )
    return blocks
