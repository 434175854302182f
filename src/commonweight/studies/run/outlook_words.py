"""What ``--dry-run`` shows: disk and memory of a study that was checked and not begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Block, Grid, size_words
from commonweight.overlaps.over_seeds import FEWEST
from commonweight.studies.continual.report import TOO_FEW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.studies.continual.outlook import ContinualOutlook
    from commonweight.studies.run.outlook import Outlook

NOTHING_DONE = (
    "Nothing was measured or written (--dry-run); everything that can be checked beforehand was, and is in order."
)
MOST_SHOWN = 40


def outlook(found: Outlook) -> list[Block]:
    """Lay out what a study will take."""
    rows = tuple(
        (
            name,
            str(needs.folds),
            size_words(needs.whole),
            size_words(needs.fold * needs.folds) if needs.folds > 1 else DASH,
            size_words(needs.disk),
            size_words(needs.memory),
        )
        for name, needs in list(found.footprints.items())[:MOST_SHOWN]
    )
    blocks: list[Block] = []
    if rows:
        left = len(found.footprints) - len(rows)
        title = f"Footprints to measure ({len(found.footprints)}{f'; the first {MOST_SHOWN}' if left else ''})"
        blocks.append(Grid(title, ("footprint", "folds", "the whole", "its folds", "disk", "sums in memory"), rows))
    totals = (
        ("footprints there already", str(found.there)),
        ("footprints", size_words(found.disk - found.models)),
        ("models and their training", size_words(found.models) if found.models else DASH),
        ("disk in all", size_words(found.disk)),
        *((("disk at most, meanwhile", size_words(found.most)),) if found.meanwhile else ()),
        *((("thrown away before", size_words(found.thrown_away)),) if found.thrown_away else ()),
        ("free on that disk", size_words(found.free)),
        ("memory: the model", size_words(found.model)),
        ("memory: sums", size_words(found.sums)),
    )
    return [
        *blocks,
        Grid(f"What {found.place} will take", ("", ""), totals),
        "Records, tables and figures come to little beside that; a forward and backward pass takes memory of its own. "
        + NOTHING_DONE,
    ]


def continual_outlook(found: ContinualOutlook) -> list[Block]:
    """Lay out what a study of continual learning will take."""
    seeds = found.plan.seeds
    rows = tuple(
        (
            name,
            _range(each.steps),
            _range([own + before for own, before in zip(each.steps, each.steps_before, strict=True)]),
            str(sum(each.steps)),
            size_words(each.training),
            size_words(each.finished),
            size_words(each.disk),
            size_words(each.disk * seeds),
            f"{sum(each.there)} of {seeds}",
        )
        for name, each in found.approaches.items()
    )
    head = ("approach", "steps a seed", "with classic", "all seeds", "training", "kept", "disk a seed", "all seeds",
            "there")  # fmt: skip
    totals = (
        ("optimiser steps that are missing", str(found.steps)),
        ("disk that is missing", size_words(found.disk)),
        ("disk at most, meanwhile", size_words(found.disk + found.meanwhile)),
        ("free on that disk", size_words(found.free)),
        ("memory: frozen weights", size_words(found.needs.weights)),
        ("memory at most, with the tasks learned before", size_words(found.memory)),
    )
    return [
        Grid(f"Approaches, {found.plan.tasks} tasks each", head, rows),
        Grid(f"What {found.place} will take", ("", ""), totals),
        "With classic: with the steps of the classic run that the similarity needs. Training: memory of the task that "
        "is learned, its scores, their gradients, what the optimiser keeps and, in transfer, what prior tasks say. "
        "Kept: memory of all tasks once they are learned. Disk: networks, and footprints of masks and activity; of "
        "records, tables and figures there will be some MB beside that. Images and a forward and backward pass take "
        "memory of their own. " + NOTHING_DONE,
        *([TOO_FEW] if found.plan.vary == "training" and seeds < FEWEST else []),
    ]


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
