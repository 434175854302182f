"""Which tasks share weights, pair by pair: verdicts over seeds, and where seeds are trainings, ceilings."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.decision.verdict import (
    ABOVE,
    LESS,
    MORE,
    OVER,
    ROUNDING,
    Verdict,
    by_chance,
    contrast_verdict,
    null_verdict,
)
from commonweight.overlaps import seed_layout
from commonweight.overlaps.over_seeds import FEWEST
from commonweight.view.verdicts import MOST_CONTRASTS, verdict_grids

if TYPE_CHECKING:
    from commonweight.decision.asked_of_tables import Pair
    from commonweight.overlaps.estimate import Estimate
    from commonweight.overlaps.over_seeds import SeedOverlap
    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.text import Block

READING = (
    "Is the overlap of two masks beyond chance above 0, and which of two pairs with a task in common shares more? {of} "
    "Intervals are {over}."
)
OF = {
    "corrected": "The second is asked of overlaps corrected by ceilings.",
    "within": (
        "The second is asked of overlaps beyond chance: how far noise of training keeps two masks apart is seen with "
        "--vary training, which gives ceilings."
    ),
}
TOO_FEW = (
    f"Ceilings, which say how far noise of training keeps two masks of one task apart, take {FEWEST} seeds at least, "
    "and ten where they are small."
)
NOT_ABOVE = (
    "Of {count} ceilings of masks {few} are not shown to be above chance, and correct nothing: more seeds (--seeds 10) "
    "show smaller ones, longer training (--epochs) makes larger ones."
)
NO_CHANCE = "Cosines of activities have no chance level, so they get no verdicts."
NOT_PAIRED = (
    "The seeds have tasks or orders of tasks of their own, so pairs of tasks get no verdicts over seeds; with "
    "--vary training all have the same."
)


def pair_blocks(study: ContinualStudy) -> list[Block]:
    """Lay out the pairs of tasks of the first approach.

    Args:
        study: What was found, of at least two tasks.

    Returns:
        Ceilings and corrected overlaps where seeds vary the training alone, and verdicts where all have the same tasks.
    """
    approach = next(iter(study.runs))
    found = study.trainings.get(approach, {})
    blocks: list[Block] = []
    if study.plan.vary == "training" and not found:
        blocks.append(TOO_FEW)
    for overlaps in found.values():
        blocks += seed_layout.blocks(overlaps)
        blocks += _not_above(overlaps) if overlaps.kind == "supermask" else [NO_CHANCE]
    if not study.same_tasks:
        return [*blocks, NOT_PAIRED]
    return [*blocks, *_verdicts(study, approach)]


def _verdicts(study: ContinualStudy, approach: str) -> list[Block]:
    pairs = list(combinations(study.tasks[0], 2))
    overlaps = study.trainings.get(approach, {}).get("masks")
    run = study.runs[approach][0]
    layers: tuple[str | None, ...] = (*(run.overlap.layers if run.overlap else ()), None)

    def beyond(pair: Pair, layer: str | None) -> Estimate:
        return study.beyond_chance(approach, *pair, layer)

    def more(first: Pair, second: Pair, layer: str | None) -> Verdict:
        difference = beyond(first, layer) - beyond(second, layer)
        if overlaps is not None:
            difference = overlaps.contrast(first, second, "corrected", layer)
        same_rows = study.plan.scenario != "partitioned"
        return contrast_verdict(
            difference, same_rows=same_rows, aligned=True, noise_taken_out=None, effective_examples=None
        )

    nulls = {
        " and ".join(pair): {
            layer: null_verdict(beyond(pair, layer), aligned=True, effective_examples=None) for layer in layers
        }
        for pair in pairs
    }
    every = [(first, second) for first, second in combinations(pairs, 2) if set(first) & set(second)]
    shown = every[:MOST_CONTRASTS]
    head = ("pair", "layers above", "beyond chance, and why")
    blocks: list[Block] = [
        *verdict_grids(f"do masks of {approach} overlap beyond chance?", head, nulls, {ABOVE: ""}),
        by_chance(len(pairs) * len(layers), "nulls"),
    ]
    if shown:
        contrasts = {
            f"{' and '.join(first)} against {' and '.join(second)}": {
                layer: more(first, second, layer) for layer in layers
            }
            for first, second in shown
        }
        head = ("pair against pair", "layers", "first - second, and why")
        question = f"which pair shares more? (masks of {approach})"
        blocks += verdict_grids(question, head, contrasts, {MORE: "more", LESS: "less"}, numbered=True)
        blocks.append(by_chance(len(shown) * len(layers), "contrasts"))
    if len(every) > len(shown):
        blocks.append(f"{len(shown)} of {len(every)} contrasts are shown.")
    of = "within" if overlaps is None else "corrected"
    return [*blocks, READING.format(of=OF[of], over=OVER["seeds"])]


def _not_above(overlaps: SeedOverlap) -> list[Block]:
    ceilings = [overlaps.ceiling(name, layer) for name in overlaps.names for layer in (*overlaps.layers, None)]
    few = sum(not ceiling.low > ROUNDING for ceiling in ceilings)
    return [NOT_ABOVE.format(count=len(ceilings), few=few)] if few else []
