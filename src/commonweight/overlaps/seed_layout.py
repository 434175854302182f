"""How overlaps over several trainings are laid out."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.overlaps.columns import WHOLE
from commonweight.text import Block, Grid

if TYPE_CHECKING:
    from commonweight.overlaps.over_seeds import SeedOverlap

READING = (
    "Within: both tasks of one training, mean over {seeds} trainings. Ceiling: one task in two different trainings. "
    "Corrected: two tasks in different trainings, over the root of both ceilings; 1 if they agree as much as two "
    "trainings of one task do{undefined}. Intervals are over seeds, that is trainings (95 %)."
)
MASKS = "; a dash where a ceiling is not above chance, or chance is not known. All are beyond chance"


def blocks(found: SeedOverlap) -> list[Block]:
    """Lay out every pair of tasks, all weights together and layer by layer.

    Args:
        found: The overlaps.

    Returns:
        Two grids and how to read them.
    """
    what, undefined = ("masks", MASKS) if found.kind == "supermask" else ("activities", "")
    pairs = list(combinations(found.names, 2))
    levels = {layer or WHOLE: layer for layer in found.layers} | {"pooled": None}
    ceilings = Grid(
        f"Ceilings of {what}: the same task trained again",
        ("layer", *found.names),
        tuple(
            (words, *(found.ceiling(name, layer).short() for name in found.names)) for words, layer in levels.items()
        ),
    )
    rows = tuple(
        (f"{a} and {b}, {words}", *(found.estimate(of, a, b, layer).short() for of in ("within", "corrected")))
        for a, b in pairs
        for words, layer in levels.items()
    )
    grid = Grid(f"Pairs of tasks over trainings: {what}", ("pair, layer", "within", "corrected"), rows)
    return [ceilings, grid, READING.format(seeds=found.seeds, undefined=undefined)]
