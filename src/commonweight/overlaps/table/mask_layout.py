"""What a table of supermasks shows beside raw overlaps: density, chance, the overlap beyond it, what is not known."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.text import DASH, Block, Grid, number
from commonweight.overlaps.table.cells import WHOLE, Column, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from commonweight.overlaps.chance import Relation
    from commonweight.overlaps.levels import Levels
    from commonweight.overlaps.table.table import OverlapTable

INDEPENDENT = (
    "Chance is the Jaccard index that independent masks of the same densities have (pooled: a ratio of summed "
    "expectations); corrected is (overlap - chance) / (1 - chance)."
)
SHARED = (
    "The scores of {pairs} started from the same draw, so these masks agree in most bits before any training and the "
    "closed form for chance does not hold. Measure the bits that flipped, with supermask_footprint(net, task, "
    "flipped=True), beside a control task with random labels."
)
SHARED_FLIPPED = (
    "The bits of {pairs} flipped from the same draw of scores: those that start near the threshold flip first whatever "
    "the task, so the closed form for chance does not hold. Measure chance with a control task with random labels."
)
MOVED = (
    "Of {pairs}, the scores of one were moved towards those of the other, or of both towards a third's, so these masks "
    "agree by construction and the closed form for chance does not hold. Compare tasks that were trained without "
    "transfer."
)
NOT_STATED = "The footprints of {pairs} do not say which draw their scores started from, so chance is not known."


def columns(table: OverlapTable, by: str) -> list[Column]:
    """Give the columns that stand beside the overlap of two masks."""
    if table.masks is None:
        return []
    levels = {"chance": table.chance, "corrected": table.corrected}
    return [
        *(
            Column(
                words,
                {name: values[0, 1] for name, values in _rows(level, by).items()},
                level.pooled[0, 1],
                level.layer_mean[0, 1],
            )
            for words, level in levels.items()
        ),
        *(
            Column(
                f"density, {footprint}",
                {name: values[index] for name, values in _rows(table.density, by).items()},
                table.density.pooled[index],
            )
            for index, footprint in enumerate(table.names)
        ),
    ]


def matrices(table: OverlapTable, decimals: int) -> list[Block]:
    """Give the matrices that stand beside the pooled overlaps of several masks."""
    if not _any_chance(table):
        return []
    return [
        matrix(table.names, "Pooled, by chance", table.chance.pooled, decimals),
        matrix(table.names, "Pooled, corrected for chance", table.corrected.pooled, decimals),
    ]


def grids(table: OverlapTable, by: str, decimals: int) -> list[Block]:
    """Give the grids that stand beside the overlaps of several masks layer by layer."""
    if table.masks is None:
        return []
    density = Grid(
        f"Density by {by}",
        (by, *table.names),
        tuple(
            (name or WHOLE, *(number(value, decimals) for value in values))
            for name, values in _rows(table.density, by).items()
        ),
        (("pooled", *(number(value, decimals) for value in table.density.pooled)),),
    )
    if not _any_chance(table):
        return [density]
    pairs = list(combinations(range(len(table.names)), 2))
    corrected = Grid(
        f"Corrected for chance, by {by}",
        (by, *(f"{table.names[i]} and {table.names[j]}" for i, j in pairs)),
        tuple(
            (name or WHOLE, *(number(values[i, j], decimals) for i, j in pairs))
            for name, values in _rows(table.corrected, by).items()
        ),
        (("pooled", *(number(table.corrected.pooled[i, j], decimals) for i, j in pairs)),),
    )
    return [corrected, density]


def footprints(table: OverlapTable) -> Grid:
    """Say what each footprint holds and where its scores started."""
    facts = table.masks
    counted = any(table.counts.values())

    def row(name: str, density: float) -> tuple[str, ...]:
        bits = "flipped" if facts and facts.flipped[name] else "mask"
        cells = (name, bits, number(density), (facts.starts[name] if facts else None) or DASH)
        return (*cells, str(table.counts[name])) if counted else cells

    header = ("footprint", "bits", "density", "score initialisation")
    return Grid(
        "The footprints",
        (*header, "examples") if counted else header,
        tuple(row(name, density) for name, density in zip(table.names, table.density.pooled, strict=True)),
    )


def sentences(table: OverlapTable) -> list[Block]:
    """Say what chance is, and for which pairs it is not known and why."""
    facts = table.masks
    if facts is None:
        return []
    found: dict[Relation, list[tuple[str, str]]] = {"independent": [], "shared": [], "moved": [], "not stated": []}
    for pair in combinations(table.names, 2):
        found[facts.relation(*pair)].append(pair)
    flipped = any(facts.flipped.values())
    words: dict[Relation, str] = {
        "shared": SHARED_FLIPPED if flipped else SHARED,
        "moved": MOVED,
        "not stated": NOT_STATED,
    }
    said: list[Block] = [INDEPENDENT] if found["independent"] else []
    return said + [
        sentence.format(pairs=_listed(table.names, found[relation]))
        for relation, sentence in words.items()
        if found[relation]
    ]


def _listed(names: tuple[str, ...], pairs: list[tuple[str, str]]) -> str:
    members = [name for name in names if any(name in pair for pair in pairs)]
    if len(pairs) == len(members) * (len(members) - 1) // 2:  # every pair of these
        return f"{', '.join(members[:-1])} and {members[-1]}"
    return ", ".join(f"{a} and {b}" for a, b in pairs)


def _any_chance(table: OverlapTable) -> bool:
    return table.masks is not None and bool(np.isfinite(table.chance.pooled).any())


def _rows(level: Levels, by: str) -> Mapping[str, NDArray[np.float64]]:
    return level.by_layer if by == "layer" else level.by_parameter
