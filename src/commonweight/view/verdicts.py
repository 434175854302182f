"""The verdicts of a table of overlaps, in words and small grids."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.decision.table_verdicts import contrasts_of, overlap_verdict, pairs_verdict, same_rows
from commonweight.decision.verdict import ABOVE, LESS, MORE, OVER, by_chance
from commonweight.overlaps.columns import WHOLE
from commonweight.text import Block, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.decision.table_verdicts import Cell
    from commonweight.decision.verdict import Verdict
    from commonweight.overlaps.table import OverlapTable

WITHOUT_FOLDS = (
    "No verdicts: they need intervals, and intervals need folds in every footprint: measure with folds, such as "
    "--folds 8 or fisher(..., folds=8)."
)
READING = (
    "One overlap alone is above its null or not: that never says how much is shared. Which pair shares more is decided "
    "on corrected overlaps of the same source rows, of models with a common start. Intervals are {over}."
)
MOST_CONTRASTS = 12


def verdict_blocks(
    table: OverlapTable, cells: Mapping[str, Cell] | None = None, by: str | int = "layer"
) -> list[Block]:
    """Lay out what may be said of a table: every overlap against its null, and which pairs share more.

    Args:
        table: The table.
        cells: Footprint -> what it is of; without it there are no contrasts.
        by: ``layer``, or a depth of the module tree; with ``parameter`` verdicts are by layer all the same.

    Returns:
        Grids and how to read them; one sentence without folds; nothing for tables that are not of Fishers.
    """
    if table.kind != "fisher":
        return []
    if table.resampled is None:
        return [WITHOUT_FOLDS]
    if isinstance(by, int):
        table = table.roll_up(by)
    return [*_nulls(table), *_contrasts(table, cells or {}), READING.format(over=OVER["folds"])]


def counted(verdicts: Sequence[Verdict], words: Mapping[str, str]) -> str:
    """Count verdicts by their answer.

    Args:
        verdicts: At least one.
        words: Answer -> what it is called here; other answers are not counted.

    Returns:
        ``3 more, 1 less of 12``.
    """
    found = Counter[str](verdict.answer for verdict in verdicts)
    return ", ".join(f"{found[answer]} {word}".strip() for answer, word in words.items()) + f" of {len(verdicts)}"


def _nulls(table: OverlapTable) -> list[Block]:
    pairs = list(combinations(table.names, 2))
    pooled = {pair: overlap_verdict(table, *pair) for pair in pairs}
    layers = {pair: [overlap_verdict(table, *pair, layer) for layer in table.layers] for pair in pairs}
    rows = tuple(
        (f"{a} and {b}", verdict.answer, counted(layers[a, b], {ABOVE: ""}), verdict.brief)
        for (a, b), verdict in pooled.items()
    )
    return [
        Grid(
            "Verdicts: above its null?", ("pair", "all weights together", "layers above", "raw - null, and why"), rows
        ),
        Grid(
            "Verdicts by layer: above its null?",
            ("layer", *(f"{a} and {b}" for a, b in pairs)),
            _by_layer(table, list(layers.values())),
        ),
        by_chance(len(pairs) * (1 + len(table.layers)), "nulls"),
    ]


def _contrasts(table: OverlapTable, cells: Mapping[str, Cell]) -> list[Block]:
    every = contrasts_of(cells)
    shown = every[:MOST_CONTRASTS]
    if not shown:
        return []
    pooled, layers = {}, {}
    for first, second in shown:
        same = same_rows(cells, first, second)
        pooled[first, second] = pairs_verdict(table, first, second, same_rows=same)
        layers[first, second] = [pairs_verdict(table, first, second, layer, same_rows=same) for layer in table.layers]
    rows = tuple(
        (
            f"{place}. {first[0]} and {first[1]} against {second[0]} and {second[1]}",
            verdict.answer,
            counted(layers[first, second], {MORE: "more", LESS: "less"}),
            verdict.brief,
        )
        for place, ((first, second), verdict) in enumerate(pooled.items(), 1)
    )
    head = ("pair against pair", "all weights together", "layers", "corrected, first - second, and why")
    blocks: list[Block] = [
        Grid("Verdicts: which pair shares more?", head, rows),
        Grid(
            "Verdicts by layer: which pair shares more?",
            ("layer", *(f"{place}." for place in range(1, 1 + len(pooled)))),
            _by_layer(table, list(layers.values())),
        ),
        by_chance(len(shown) * (1 + len(table.layers)), "contrasts"),
    ]
    if len(every) > len(shown):
        blocks.append(
            f"{len(shown)} of {len(every)} contrasts are shown; any other is pairs_verdict(table, (A, B), (C, D), "
            "same_rows=...) in commonweight.decision."
        )
    return blocks


def _by_layer(table: OverlapTable, columns: Sequence[Sequence[Verdict]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (layer or WHOLE, *(_short(column[place]) for column in columns)) for place, layer in enumerate(table.layers)
    )


def _short(verdict: Verdict) -> str:
    return verdict.answer.removesuffix(" its null").removeprefix("shares ")
