"""What a study of continual learning found, in words and tables."""

from __future__ import annotations

import math
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.estimate import Estimate
from commonweight.base.text import DASH, Block, Grid
from commonweight.overlaps.over_seeds import FEWEST
from commonweight.overlaps.similarity.means import LEVEL
from commonweight.report.verdicts import MOST_CONTRASTS, verdict_grids
from commonweight.verdicts.rules import ABOVE, INCONCLUSIVE, LESS, MORE, ROUNDING
from commonweight.verdicts.verdict import Verdict, contrast_verdict, null_verdict
from commonweight.verdicts.words import OVER, SHORT, by_chance, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from commonweight.overlaps.over_seeds import SeedOverlap
    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.verdicts.evidence import Pair


INTRODUCTION = (
    "One network with frozen weights learned {tasks} tasks ({scenario} {data}), one after the other, with one mask and "
    "one set of batch-norm statistics per task. Classic: each mask is trained alone. Transfer: alphas let prior tasks "
    "influence the mask while it is trained. Initialised: prior tasks influence only where it starts.{betas}"
)


READING = (
    "How to read this. ACC is the mean final accuracy with the task known; BWT and forgetting come from accuracies "
    "that were measured again after every task. Area is the mean height of the learning curve of all tasks but the "
    "first, gain the part of the missing area that was won over classic with the same seed. Steps count a whole run, "
    "with the classic run that the similarities of first_layer and every_layer need beforehand; probed needs none. "
    "So a fair rival of such a transfer is classic-double, whose area is that of the second half of its steps. A claim "
    "that similarity helps needs most_similar to beat random and least_similar. An interval is over seeds (95 %, "
    "Student's t, paired); with one seed there is none, and then a difference decides nothing."
)


INFERENCE = (
    "Images asked about together are of one task; {rows} test images per task. Accuracy is that of the predictions "
    "made, whichever task was inferred; wrong task = 0 counts a wrongly inferred batch as all wrong, as SupSup does. "
    "While the task is unknown, one_shot and binary use the statistics of the images blended with those of the mixture "
    "of tasks, the other two each task's own. Chance of the right task is 1/{tasks} = {chance:.3f}{below}."
)


BELOW = "*"


WORSE = f"; {BELOW} is below it: guessing would have found the task more often"


NO_ANSWER = (
    "Rows of dashes: nearest_statistics compares the spread of units with that of batch norm; it is not defined for a "
    "single image, and there is none in a network without batch norm."
)


ENDED = (
    "A dash: not all tasks were measured there. classic-double takes twice the steps of the others: in the first half "
    "it is classic, and its area is that of the second half alone."
)


MASKS = (
    "Chance is what independent masks of the same densities have; beyond chance is (raw - chance) / (1 - chance). "
    "Where scores started from one draw, or were moved towards those of another task, chance is not known, and what is "
    "beyond it undefined. Whether it is above 0 is asked over seeds, of the mean over pairs of tasks."
)


SHUFFLES = (
    "A similarity is above its null if at most 5 % of shuffles of the units reach it, asked of every pair and seed: of "
    "{looked}, about {chance:.1f} would seem to be by chance."
)


CURVE_COLUMNS = 6
"""Points of the learning curves in the table that all approaches have."""


LATER_COLUMNS = 4
"""Points at later steps, which only some have."""


FEWEST_RANKED = 6
"""Pairs of tasks: the rank correlation of fewer is almost any number by chance, and is not shown."""


def report(study: ContinualStudy) -> list[Block]:
    """Lay out a study."""
    plan = study.plan
    introduction = INTRODUCTION.format(tasks=plan.tasks, scenario=plan.scenario, data=plan.data, betas=_betas(study))
    blocks: list[Block] = [introduction, accuracies(study)]
    if plan.tasks > 1:
        blocks += [*_curves(study), *_inference(study), _finals(study), *_masks(study), *pair_blocks(study)]
        blocks += [*_similarities(study), *_alphas(study)]
    return [*blocks, READING]


def accuracies(study: ContinualStudy) -> Grid:
    """Lay out what each approach came to."""
    has_reference = "classic" in study.runs
    head = ("approach", "ACC", "BWT", "forgetting", "area", "gain", "ACC over classic", "steps")
    rows = []
    for name in study.runs:
        against = [DASH, DASH]
        if has_reference and name != "classic":
            against = [signed(study.gain(name)), signed(study.difference(name))]
        rows.append((
            name,
            study.average_accuracy(name).short(),
            signed(study.backward_transfer(name)),
            signed(study.forgetting(name)),
            study.area(name).short(),
            *against,
            str(study.budget(name)),
        ))
    return Grid(f"Accuracy with the task known (seeds: {study.plan.seeds})", head, tuple(rows))


def signed(value: Estimate) -> str:
    """Write a difference with its interval."""
    if math.isnan(value.value):
        return DASH
    half = "" if math.isnan(value.half_width()) else f" ± {value.half_width():.4f}"
    return "0" if not any(value.replicates) else f"{value.value:+.4f}{half}"


def mean_curve(study: ContinualStudy, approach: str) -> dict[int, float]:
    """Average the learning curves of all tasks but the first, over tasks and seeds."""
    curves = [curve for run in study.runs[approach] for curve in run.curves[1:]]
    common = set.intersection(*(set(curve.steps) for curve in curves))
    return {
        step: float(np.mean([curve.accuracies[curve.steps.index(step)] for curve in curves])) for step in sorted(common)
    }


def _betas(study: ContinualStudy) -> str:
    """A sentence on the strength of the influence in every approach that has one."""
    strengths = [f"{found.name} {found.strength(study.plan.beta):g}" for found in study.plan.runs() if found.has_priors]
    return f" Strength (beta): {', '.join(strengths)}." if strengths else ""


def _curves(study: ContinualStudy) -> list[Block]:
    curves = {name: mean_curve(study, name) for name in study.runs}
    common = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    later = sorted({step for curve in curves.values() for step in curve if step > common[-1]})
    shown = _spread(common, CURVE_COLUMNS, first=True) + _spread(later, LATER_COLUMNS, first=False)
    grid = Grid(
        "Accuracy while a task is learned (mean over all tasks but the first, and seeds)",
        ("approach, after steps", *map(str, shown)),
        tuple(
            (name, *(f"{curve[step]:.3f}" if step in curve else DASH for step in shown))
            for name, curve in curves.items()
        ),
    )
    return [grid, ENDED] if later else [grid]


def _spread(steps: Sequence[int], count: int, *, first: bool) -> list[int]:
    """Choose so many of the steps or fewer, evenly, with the last and if asked the first."""
    parts = count - 1 if first else count
    places = range(0 if first else 1, parts + 1)
    return sorted({steps[round(k * (len(steps) - 1) / parts)] for k in places}) if steps else []


def _inference(study: ContinualStudy) -> list[Block]:
    plan = study.plan
    if not plan.inference or not plan.inference_batches:
        return []
    head = ("approach, method, images", "task right", "accuracy", "wrong task = 0", "task known")
    chance = 1 / plan.tasks
    rows, any_below, any_undefined = [], False, False
    for name, method, size in product(study.runs, plan.inference, plan.inference_batches):
        right, *others = (
            study.inference(name, size, method, what) for what in ("task", "accuracy", "accuracy_wrong_task_0", "known")
        )
        is_below = right.value < chance - ROUNDING
        any_below |= is_below
        any_undefined |= all(math.isnan(each.value) for each in (right, *others))
        rows.append((f"{name}, {method}, {size}", _share(right) + BELOW * is_below, *map(_share, others)))
    below = WORSE if any_below else ""
    words = INFERENCE.format(rows=plan.inference_rows, tasks=plan.tasks, chance=chance, below=below)
    return [Grid("With the task inferred", head, tuple(rows)), words, *([NO_ANSWER] if any_undefined else [])]


def _finals(study: ContinualStudy) -> Grid:
    """The last row of every accuracy matrix: all tasks after the last one."""
    names = [f"task {index}" for index in range(len(study.tasks[0]))]
    return Grid(
        "Final accuracy on every task (mean over seeds)",
        ("approach", *names),
        tuple(
            (name, *(f"{value:.3f}" for value in np.mean([run.R[-1] for run in runs], axis=0)))
            for name, runs in study.runs.items()
        ),
    )


def _masks(study: ContinualStudy) -> list[Block]:
    """Density, raw, chance and corrected Jaccard index of the masks, mean over pairs of tasks, and a verdict."""
    rows, looked = [], 0
    reasons: dict[str, None] = {}
    for name, runs in study.runs.items():
        tables = [run.overlap for run in runs if run.overlap is not None]
        for layer in (*tables[0].layers, None):
            every = [
                [
                    levels.pooled if layer is None else levels.by_layer[layer]
                    for levels in (table, table.chance, table.corrected)
                ]
                for table in tables
            ]
            raw, chance, corrected = (Estimate.over_seeds([_pairs(levels[k]) for levels in every]) for k in range(3))
            density = Estimate.over_seeds([
                float(np.mean(table.density.pooled if layer is None else table.density.by_layer[layer]))
                for table in tables
            ])
            verdict = null_verdict(corrected, aligned=True, effective_sample_size=None)
            looked += corrected.missing is None
            if verdict.answer == INCONCLUSIVE:
                reasons[sentence(verdict.lacking[0])] = None
            rows.append((
                f"{name}, {'pooled' if layer is None else layer}",
                *(each.short() for each in (density, raw, chance, corrected)),
                SHORT[verdict.answer],
            ))
    what = "flipped bits of the masks" if study.plan.score_initialisation == "shared" else "masks"
    head = ("approach, layer", "density", "raw", "chance", "beyond chance", "is that above 0")
    return [
        Grid(f"Jaccard index of the {what} (mean over pairs of tasks and seeds)", head, tuple(rows)),
        MASKS,
        *([f"Inconclusive: {'; or '.join(reasons)}."] if reasons else []),
        *([by_chance(looked, "nulls")] if looked else []),
    ]


def _similarities(study: ContinualStudy) -> list[Block]:
    """How each similarity of the first approach goes with the truth, and how often it is above its null."""
    name, runs = next(iter(study.runs.items()))
    rows, looked = [], 0
    pairs_known = study.known_pairs
    for kind in runs[0].similarity:
        for layer in runs[0].similarity[kind].layers:
            tables = [run.similarity[kind] for run in runs]
            earlier = [np.tril_indices(len(table.tasks), -1) for table in tables]
            mean = Estimate.over_seeds([
                float(np.mean(table.values[layer][pairs])) for table, pairs in zip(tables, earlier, strict=True)
            ])
            above = [
                is_above
                for table, pairs in zip(tables, earlier, strict=True)
                for is_above in table.beats_null(layer)[pairs].tolist()
            ]
            looked += len(above)
            rows.append((
                f"{kind}, {layer}",
                mean.short(),
                f"{sum(above)} of {len(above)}",
                signed(study.rank_correlation(name, kind, layer)) if pairs_known >= FEWEST_RANKED else DASH,
            ))
    if not rows:
        return []
    head = ("similarity, batch norm", "mean", "pairs above their null", "rank correlation with truth")
    return [
        Grid(
            f"Task similarity in the {name} network (every task with those before it; mean over seeds)",
            head,
            tuple(rows),
        ),
        SHUFFLES.format(looked=looked, chance=looked * LEVEL),
        _ranked(pairs_known),
    ]


def _ranked(pairs: int) -> str:
    if not pairs:
        return "How alike these tasks truly are is not known, so there is no rank correlation with it."
    if pairs < FEWEST_RANKED:
        return (
            f"The true similarity of {pairs} {'pairs' if pairs > 1 else 'pair'} of tasks is known; a rank correlation "
            f"of fewer than {FEWEST_RANKED} is almost any number by chance, and is not shown."
        )
    return f"Rank correlations are Spearman's, over {pairs} pairs of tasks in every seed."


def _alphas(study: ContinualStudy) -> list[Block]:
    """Which prior tasks each task of seed 0 was influenced by."""
    rows = []
    for name, runs in study.runs.items():
        for alphas in runs[0].alphas:
            if alphas is not None:
                rows += [
                    (f"{name}, {alphas.task}, {layer or 'every layer'}", _chosen(row), alphas.reasons[layer])
                    for layer, row in alphas.layers.items()
                ]
    return [Grid("Alphas of seed 0", ("approach, task, batch norm", "alphas", "reason"), tuple(rows))] if rows else []


def _chosen(row: Mapping[str, float]) -> str:
    return ", ".join(prior if alpha == 1 else f"{prior} {alpha:.2f}" for prior, alpha in row.items() if alpha) or DASH


def _share(value: Estimate) -> str:
    if math.isnan(value.value):
        return DASH
    return f"{value.value:.3f}" + ("" if math.isnan(value.half_width()) else f" ± {value.half_width():.3f}")


def _pairs(matrix: NDArray[np.float64]) -> float:
    return float(np.mean(matrix[np.triu_indices(len(matrix), 1)]))


READING_PAIRS = (
    "Is the overlap of two masks beyond chance above 0, and which of two pairs with a task in common shares more? {of} "
    "Intervals are {over}."
)


OF = {
    "corrected": "The second is asked of overlaps corrected by noise ceilings.",
    "within": (
        "The second is asked of overlaps beyond chance: how far noise of training keeps two masks apart is seen with "
        "--vary training, which gives noise ceilings."
    ),
}


TOO_FEW = (
    f"Noise ceilings, which say how far noise of training keeps two masks of one task apart, take {FEWEST} seeds at "
    "least, "
    "and ten where they are small."
)


NOT_ABOVE = (
    "Of {count} noise ceilings of masks {few} are not shown to be above chance, and correct nothing: more seeds "
    "(--seeds 10) "
    "show smaller ones, longer training (--epochs) makes larger ones."
)


NO_CHANCE = "Cosines of activities have no chance level, so they get no verdicts."


NOT_PAIRED = (
    "The seeds have tasks or orders of tasks of their own, so pairs of tasks get no verdicts over seeds; with "
    "--vary training all have the same."
)


def pair_blocks(study: ContinualStudy) -> list[Block]:
    """Lay out the pairs of tasks of the first approach."""
    approach = next(iter(study.runs))
    found = study.trainings.get(approach, {})
    blocks: list[Block] = []
    if study.plan.vary == "training" and not found:
        blocks.append(TOO_FEW)
    for overlaps in found.values():
        blocks += overlaps.blocks()
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
            difference, same_rows=same_rows, aligned=True, noise_taken_out=None, effective_sample_size=None
        )

    nulls = {
        " and ".join(pair): {
            layer: null_verdict(beyond(pair, layer), aligned=True, effective_sample_size=None) for layer in layers
        }
        for pair in pairs
    }
    every = [(first, second) for first, second in combinations(pairs, 2) if set(first) & set(second)]
    shown = every[:MOST_CONTRASTS]
    head = ("pair", "layers above", "beyond chance, and why")
    blocks: list[Block] = [
        *verdict_grids(f"do masks of {approach} overlap beyond chance?", head, nulls, [ABOVE]),
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
        blocks += verdict_grids(question, head, contrasts, [MORE, LESS], numbered=True)
        blocks.append(by_chance(len(shown) * len(layers), "contrasts"))
    if len(every) > len(shown):
        blocks.append(f"{len(shown)} of {len(every)} contrasts are shown.")
    of = "within" if overlaps is None else "corrected"
    return [*blocks, READING_PAIRS.format(of=OF[of], over=OVER["seeds"])]


def _not_above(overlaps: SeedOverlap) -> list[Block]:
    noise_ceilings = [
        overlaps.noise_ceiling(name, layer) for name in overlaps.names for layer in (*overlaps.layers, None)
    ]
    few = sum(not noise_ceiling.low > ROUNDING for noise_ceiling in noise_ceilings)
    return [NOT_ABOVE.format(count=len(noise_ceilings), few=few)] if few else []
