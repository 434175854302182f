"""What the demonstration found, in words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.overlaps.layout import FEW_EXAMPLES
from commonweight.text import Block, Grid, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.overlaps.table import OverlapTable

DEPTH = 4
"""Module levels of the layer table: one row for each embedding, each encoder block, the pooler and the head."""

INTRODUCTION = (
    "Two copies of one untrained three-layer encoder were taught to tell good from bad, one on film reviews, one on "
    "food reviews. Both have to learn what 'not' and 'good' do; 'gripping' and 'soggy' only one of them meets. Each "
    "model was then measured on held-out reviews of both kinds: its diagonal Fisher says which weights its answers "
    "there depend on."
)

CAUTION = (
    "How to read this. An overlap of 1 is the same distribution of importance over the weights, 0 is disjoint. These "
    "are raw overlaps: they mix what is shared with sampling noise, since two samples of one and the same Fisher "
    "overlap below 1 too, and part of every overlap is there by chance or by architecture, as the start shows, which "
    "has learned nothing. So compare overlaps of one layer with each other and with the start's, and read none of them "
    "as an amount of shared knowledge. What may be said: where two cells of one row differ by far, the importances "
    "differ more there. What may not: that a layer shares 'most' of what it knows, that a small difference means "
    "anything (no interval is given yet), or that low layers share more than high ones because one number is larger."
)


def pairs_of_interest() -> tuple[tuple[str, str, str], ...]:
    """List the pairs of footprints the layer table shows.

    Returns:
        Heading and the two ``model/data`` names.
    """
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
    """Lay out the demonstration.

    Args:
        scores: Model -> domain -> accuracy and loss on held-out reviews.
        best: Domain -> the best expected accuracy and loss.
        table: Overlaps of every ``model/data`` pair.

    Returns:
        Paragraphs and tables, from top to bottom.
    """
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
        Grid(
            "Fisher overlap, all weights together",
            ("model/reviews", *table.names),
            tuple(
                (name, *(number(float(table.pooled[i, j])) for j in range(len(table.names))))
                for i, name in enumerate(table.names)
            ),
        ),
        _by_layer(table.roll_up(DEPTH)),
        table.alignment.sentence(),
        Grid(
            "Effective examples (how many examples carry the trace)",
            ("model/reviews", "examples", "effective"),
            tuple((name, str(table.counts[name]), f"{table.effective_examples[name]:.1f}") for name in table.names),
        ),
        *_few(table),
        CAUTION,
    ]


def _few(table: OverlapTable) -> list[Block]:
    names = [name for name, effective in table.effective_examples.items() if not effective >= FEW_EXAMPLES]
    if not names:
        return []
    return [f"Below {FEW_EXAMPLES} effective examples: {', '.join(names)}. Their overlaps decide nothing."]


def _cells(row: Mapping[str, tuple[float, float]], domains: Sequence[str]) -> list[str]:
    return [f"{value:.3f}" for domain in domains for value in row[domain]]


def _by_layer(table: OverlapTable) -> Grid:
    position = {name: i for i, name in enumerate(table.names)}
    pairs = [(head, position[a], position[b]) for head, a, b in pairs_of_interest()]
    return Grid(
        "Fisher overlap, layer by layer",
        ("layer", *(head for head, _, _ in pairs)),
        tuple((layer, *(number(float(o[i, j])) for _, i, j in pairs)) for layer, o in table.by_layer.items()),
        (("pooled", *(number(float(table.pooled[i, j])) for _, i, j in pairs)),),
    )
