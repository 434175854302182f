"""The verdicts of a table of overlaps, in words and small grids."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.text import Block, Grid
from commonweight.overlaps.table.rows import WHOLE
from commonweight.verdicts.tables import contrasts_of, overlap_verdict, pairs_verdict, same_rows
from commonweight.verdicts.verdict import ABOVE, INCONCLUSIVE, LESS, MORE, OVER, by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.verdicts.tables import Cell
    from commonweight.verdicts.verdict import Verdict

WITHOUT_FOLDS = (
    "No verdicts: they need intervals, and intervals need folds. Where a footprint has none, measure it with folds, "
    "such as --folds 8 or fisher(..., folds=8); where they were left out, compare again without --no-intervals, or "
    "intervals=False."
)
READING = (
    "One overlap alone is above its null or not: that never says how much is shared. Which pair shares more is decided "
    "on corrected overlaps of the same source rows, of models with a shared initialisation. In brackets: what a "
    "layer lacks. "
    "Intervals are {over}."
)
MOST_CONTRASTS = 12
LACKING = {
    "shortcut learned": "not learned",
    "two footprints": "one footprint",
    "same Fisher type": "Fisher types",
    "distinct rows": "distinct rows?",
    "at most 1": "above 1",
    "two networks": "one network",
    "beyond the null too": "not beyond the null",
    "same rows": "other rows",
    "shared initialisation": "no shared initialisation",
    "noise taken out": "raw",
    "effective sample size": "few examples",
    "interval": "no interval",
    "excludes 0": "holds 0",
}
"""Need -> what is said in a table of layers where it is not met."""


def verdict_blocks(
    table: OverlapTable, cells: Mapping[str, Cell] | None = None, by: str | int = "layer"
) -> list[Block]:
    """Lay out what may be said of a table: every overlap against its null, and which pairs share more."""
    if table.kind != "fisher":
        return []
    if table.resampled is None:
        return [WITHOUT_FOLDS]
    if isinstance(by, int):
        table = table.roll_up(by)
    return [*_nulls(table), *_contrasts(table, cells or {}), READING.format(over=OVER["folds"])]


def counted(verdicts: Sequence[Verdict], words: Mapping[str, str]) -> str:
    """Count verdicts by their answer."""
    found = Counter[str](verdict.answer for verdict in verdicts)
    return ", ".join(f"{found[answer]} {word}".strip() for answer, word in words.items()) + f" of {len(verdicts)}"


def verdict_grids(
    question: str,
    head: tuple[str, str, str],
    asked: Mapping[str, Mapping[str | None, Verdict]],
    words: Mapping[str, str],
    *,
    numbered: bool = False,
) -> list[Block]:
    """Lay out verdicts on all weights together with their reasons, and below them those of every layer."""
    names = [f"{place}. {name}" if numbered else name for place, name in enumerate(asked, 1)]
    columns = [name.split()[0] if numbered else name for name in names]
    layers = [layer for layer in next(iter(asked.values())) if layer is not None]
    rows = tuple(
        (name, by[None].answer, counted([by[layer] for layer in layers], words), by[None].brief)
        for name, by in zip(names, asked.values(), strict=True)
    )
    by_layer = tuple((layer or WHOLE, *(short(by[layer]) for by in asked.values())) for layer in layers)
    return [
        Grid(f"Verdicts: {question}", (head[0], "all weights together", *head[1:]), rows),
        Grid(f"Verdicts by layer: {question}", ("layer", *columns), by_layer),
    ]


def _nulls(table: OverlapTable) -> list[Block]:
    asked = {
        f"{a} and {b}": {layer: overlap_verdict(table, a, b, layer) for layer in (*table.layers, None)}
        for a, b in combinations(table.names, 2)
    }
    return [
        *verdict_grids("above its null?", ("pair", "layers above", "corrected - null, and why"), asked, {ABOVE: ""}),
        by_chance(len(asked) * (1 + len(table.layers)), "nulls"),
    ]


def _contrasts(table: OverlapTable, cells: Mapping[str, Cell]) -> list[Block]:
    every = contrasts_of(cells)
    shown = every[:MOST_CONTRASTS]
    if not shown:
        return []
    asked = {
        f"{' and '.join(first)} against {' and '.join(second)}": {
            layer: pairs_verdict(table, first, second, layer, same_rows=same_rows(cells, first, second))
            for layer in (*table.layers, None)
        }
        for first, second in shown
    }
    head = ("pair against pair", "layers", "corrected, first - second, and why")
    blocks = [
        *verdict_grids("which pair shares more?", head, asked, {MORE: "more", LESS: "less"}, numbered=True),
        by_chance(len(shown) * (1 + len(table.layers)), "contrasts"),
    ]
    if len(every) > len(shown):
        blocks.append(
            f"{len(shown)} of {len(every)} contrasts are shown; any other is pairs_verdict(table, (A, B), (C, D), "
            "same_rows=...) in commonweight.fusion."
        )
    return blocks


def short(verdict: Verdict) -> str:
    """Write a verdict for a table of layers."""
    if verdict.answer == INCONCLUSIVE:
        return f"{INCONCLUSIVE} ({LACKING[verdict.lacking[0].name]})"
    return verdict.answer.removesuffix(" its null").removeprefix("shares ")
