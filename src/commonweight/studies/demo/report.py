"""What the demonstration found, in words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.text import Block, Grid, number
from commonweight.report.verdicts import verdict_grids
from commonweight.verdicts.rules import LESS, MORE, SMALLEST_EFFECTIVE
from commonweight.verdicts.words import by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable

DEPTH = 4
"""Module levels of the layer table: one row for each embedding, each encoder block, the pooler and the head."""

INTRODUCTION = (
    "Two copies of one untrained three-layer encoder were taught to tell good from bad, one on film reviews, one on "
    "food reviews. Both have to learn what 'not' and 'good' do; 'gripping' and 'soggy' only one of them meets. Each "
    "model was then measured on held-out reviews of both kinds: its diagonal Fisher says which weights its answers "
    "there depend on."
)

CAUTION = (
    "How to read this. An overlap of 1 is the same distribution of importance over the weights, 0 is disjoint. Two "
    "samples of one and the same Fisher overlap below 1 too: by their noise ceilings. Corrected overlaps are taken "
    "between "
    "different reviews and divided by the noise ceilings, so they are what to compare; the null is what they would "
    "be if the "
    "weights of one were shuffled. Intervals (95 %) are over folds of the reviews: about other reviews and the same "
    "models, not about other trainings. No overlap alone says how much is shared. A contrast on the same reviews says "
    "which pair shares more, and the start, which has learned nothing, is the control."
)
CONTRASTS = {
    "both on films against start and films on films": (("films/films", "food/films"), ("start/films", "films/films")),
    "both on food against start and food on food": (("films/food", "food/food"), ("start/food", "food/food")),
}
"""Same reviews on both sides: do the two trained models share more than one of them does with the start?"""


def pairs_of_interest() -> tuple[tuple[str, str, str], ...]:
    """List the pairs of footprints the layer table shows."""
    return (
        ("each on its own", "films/films", "food/food"),
        ("both on films", "films/films", "food/films"),
        ("both on food", "films/food", "food/food"),
        ("start on both", "start/films", "start/food"),
        ("start and films on films", "start/films", "films/films"),
        ("start and food on food", "start/food", "food/food"),
    )


def report(
    scores: Mapping[str, Mapping[str, tuple[float, float]]],
    best: Mapping[str, tuple[float, float]],
    table: OverlapTable,
) -> list[Block]:
    """Lay out the demonstration."""
    domains = list(best)
    return [
        INTRODUCTION,
        Grid(
            "Held-out reviews: accuracy and loss (nats)",
            ("model", *(f"{domain}, {what}" for domain in domains for what in ("accuracy", "loss"))),
            tuple((name, *_cells(row, domains)) for name, row in scores.items()),
            (("best attainable", *_cells(best, domains)),),
        ),
        "The best attainable is below 1 because some reviews are truly ambiguous: their label was drawn at random.",
        _pooled(table),
        _by_layer(table.roll_up(DEPTH)),
        *_verdicts(table.roll_up(DEPTH)),
        table.alignment.sentence(),
        Grid(
            "Effective sample size (how many examples carry the trace)",
            ("model/reviews", "examples", "effective"),
            tuple((name, str(table.counts[name]), f"{table.effective_sample_size[name]:.1f}") for name in table.names),
        ),
        *_few(table),
        CAUTION,
    ]


def _few(table: OverlapTable) -> list[Block]:
    names = [name for name, effective in table.effective_sample_size.items() if not effective >= SMALLEST_EFFECTIVE]
    if not names:
        return []
    return [f"Effective sample size below {SMALLEST_EFFECTIVE}: {', '.join(names)}. Their overlaps decide nothing."]


def _cells(row: Mapping[str, tuple[float, float]], domains: Sequence[str]) -> list[str]:
    return [f"{value:.3f}" for domain in domains for value in row[domain]]


def _pooled(table: OverlapTable) -> Grid:
    def row(words: str, a: str, b: str) -> tuple[str, ...]:
        raw, corrected, null = (table.estimate(of, a, b) for of in ("raw", "corrected", "null"))
        noise_ceilings = (float(table.noise_ceiling.pooled[table.names.index(name)]) for name in (a, b))
        return (words, number(raw.value), *map(number, noise_ceilings), corrected.short(), number(null.value))

    return Grid(
        "Fisher overlap, all weights together",
        ("pair", "raw", "noise ceiling of the first", "of the second", "corrected", "null"),
        tuple(row(*pair) for pair in pairs_of_interest()),
    )


def _by_layer(table: OverlapTable) -> Grid:
    pairs = pairs_of_interest()
    return Grid(
        "Corrected overlap, layer by layer",
        ("layer", *(words for words, _, _ in pairs)),
        tuple(
            (layer, *(number(table.estimate("corrected", a, b, layer).value) for _, a, b in pairs))
            for layer in table.layers
        ),
    )


def _verdicts(table: OverlapTable) -> list[Block]:
    asked = {
        words: {layer: table.verdict(*pairs, layer=layer, same_rows=True) for layer in (*table.layers, None)}
        for words, pairs in CONTRASTS.items()
    }
    head = ("pair against pair", "layers", "corrected, first - second, and why")
    return [
        *verdict_grids("which pair shares more?", head, asked, [MORE, LESS]),
        by_chance(len(asked) * (1 + len(table.layers)), "contrasts"),
    ]
