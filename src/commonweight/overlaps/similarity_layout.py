"""What similarities of tasks show, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.text import Block, Grid, number

if TYPE_CHECKING:
    from commonweight.overlaps.similarity import TaskSimilarity

WORDS = {
    "first_layer": "absolute cosine of the first layer's batch-norm means",
    "every_layer": "absolute cosine of the batch-norm means",
    "probed": "rows: new data, columns: the task through whose mask they went",
}
TRAINED = "Every task was trained before its similarity was known: count that training when results are compared."
UNTRAINED = "No training on the new data was needed."
NULL = "A star marks what is no better than its null: at least 5 % of shuffles of the units reach it."


def blocks(found: TaskSimilarity, decimals: int) -> list[Block]:
    """Lay out similarities: a matrix per layer, and how to read it.

    Args:
        found: The similarities.
        decimals: Digits after the point.

    Returns:
        Paragraphs and grids, from top to bottom.
    """
    every = range(len(found.tasks))

    def cell(layer: str, i: int, j: int) -> str:
        value = found.values[layer][i, j]
        weak = i != j and value == value and not found.beats_null(layer)[i, j]
        return number(value, decimals) + ("*" if weak else "")

    grids = [
        Grid(
            f"Similarity of tasks at {layer}: {WORDS[found.approach]}",
            ("", *found.tasks),
            tuple((found.tasks[i], *(cell(layer, i, j) for j in every)) for i in every),
        )
        for layer in found.layers
    ]
    return [*grids, NULL, UNTRAINED if found.approach == "probed" else TRAINED]
