"""What a study of continual learning found, in words and tables."""

from __future__ import annotations

import math
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base import estimate
from commonweight.base.estimate import Estimate
from commonweight.base.text import DASH, Block, Grid
from commonweight.overlaps.over_seeds import FEWEST
from commonweight.overlaps.similarity.means import LEVEL
from commonweight.report.files import grid_of
from commonweight.report.verdicts import MOST_CONTRASTS, verdict_grids
from commonweight.studies.continual.localised import localised_blocks
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
    "one set of batch-norm statistics per task. Classic: each mask is trained alone. Transfer: alphas (weights of "
    "prior tasks) let prior tasks influence the mask while it is trained. Initialised: prior tasks influence only "
    "where the mask starts.{betas}"
)

READING = (
    "How to read this. ACC is the mean final accuracy with the task known. BWT and forgetting come from accuracies "
    "that were measured again after every task. Area is the mean height of the learning curve over all tasks but the "
    "first. Gain is (area - area of classic) / (1 - area of classic), with the same seed. Steps count a whole run. "
    "They include the classic run that the similarities of first_layer and every_layer need beforehand; probed needs "
    "none. So the fair comparison for such a transfer is classic-double, whose area is that of the second half of its "
    "steps. A claim that similarity helps needs most_similar to beat random and least_similar. An interval is over "
    "seeds (95 %, Student's t, paired). With one seed there is none, and a difference decides nothing."
)

INFERENCE = (
    "The task is inferred from a batch of images of one task; there are {rows} test images per task. Accuracy is that "
    "of the predictions made, whichever task was inferred; wrong task = 0 counts a wrongly inferred batch as all "
    "wrong, as SupSup does. While the task is unknown, one_shot and binary use the statistics of the images blended "
    "with those of the mixture of tasks. The other two use each task's own. By chance the task is right in 1/{tasks} = "
    "{chance:.3f}{below}."
)

BELOW = "*"
WORSE = f"; {BELOW} is below it: guessing would have found the task more often"

NO_ANSWER = (
    "Rows of dashes: nearest_statistics compares the spread of units with that of batch norm. This spread is undefined "
    "for a single image, and a network without batch norm has none."
)

ENDED = (
    "A dash: not all tasks were measured there. classic-double takes twice as many steps as the others. In the first "
    "half it is classic, and its area is that of the second half alone."
)

MASKS = (
    "Chance is the Jaccard index expected of independent masks of the same densities; beyond chance is (raw - chance) "
    "/ (1 - chance). If scores started from one draw, or were moved towards those of another task, chance is not "
    "known, and beyond chance is undefined. Whether it is above 0 is judged over seeds, by the mean over pairs of "
    "tasks."
)

SHUFFLES = (
    "A similarity is above its null if at most 5 % of shuffles of the units reach it. This is asked for every pair and "
    "seed: of {looked}, about {chance:.1f} would appear above by chance."
)

READING_PAIRS = (
    "Two questions: is the overlap of two masks beyond chance above 0, and which of two pairs with a task in common "
    "shares more? {of} Intervals are {over}."
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
    "least, and ten where they are small."
)

NOT_ABOVE = (
    "Of {count} noise ceilings of masks {few} are not shown to be above chance, and correct nothing. More seeds "
    "(--seeds 10) can show smaller ones, and longer training (--epochs) makes larger ones."
)

NO_CHANCE = "Cosines of activities have no chance level, so they get no verdicts."

NOT_PAIRED = (
    "Each seed has its own tasks or order of tasks, so pairs of tasks get no verdicts over seeds. With --vary training "
    "all seeds have the same."
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
    strengths = [f"{found.name} {found.strength(plan.beta):g}" for found in plan.runs() if found.has_priors]
    betas = f" Strength (beta): {', '.join(strengths)}." if strengths else ""
    introduction = INTRODUCTION.format(tasks=plan.tasks, scenario=plan.scenario, data=plan.data, betas=betas)
    blocks: list[Block] = [introduction, accuracies(study)]
    if plan.tasks > 1:
        blocks += [*_curves(study), *_inference(study), _finals(study), *_masks(study), *pair_blocks(study)]
        blocks += [*_similarities(study), *_alphas(study), *localised_blocks(study)]
    return [*blocks, READING]


def accuracies(study: ContinualStudy) -> Grid:
    """Lay out what each approach came to."""

    def row(name: str) -> dict[str, str]:
        has_reference = "classic" in study.runs and name != "classic"
        return {
            "ACC": study.average_accuracy(name).short(),
            "BWT": signed(study.backward_transfer(name)),
            "forgetting": signed(study.forgetting(name)),
            "area": study.area(name).short(),
            "gain": signed(study.gain(name)) if has_reference else DASH,
            "ACC over classic": signed(study.difference(name)) if has_reference else DASH,
            "steps": str(study.budget(name)),
        }

    title = f"Accuracy with the task known (seeds: {study.plan.seeds})"
    return grid_of(title, "approach", {name: row(name) for name in study.runs})


def signed(value: Estimate) -> str:
    """Write a difference with its interval; one that is 0 in every seed is a plain 0."""
    return "0" if value.replicates and not any(value.replicates) else estimate.signed(value)


def mean_curve(study: ContinualStudy, approach: str) -> dict[int, float]:
    """Average the learning curves of all tasks but the first, over tasks and seeds."""
    curves = [dict(zip(c.steps, c.accuracies, strict=True)) for run in study.runs[approach] for c in run.curves[1:]]
    return {step: float(np.mean([curve[step] for curve in curves])) for step in _in_all(curves)}


def _in_all(curves: Sequence[Mapping[int, Any]]) -> list[int]:
    return sorted(set.intersection(*map(set, curves)))


def _curves(study: ContinualStudy) -> list[Block]:
    curves = {name: mean_curve(study, name) for name in study.runs}
    common = _in_all([*curves.values()])
    later = sorted({step for curve in curves.values() for step in curve if step > common[-1]})
    shown = _spread(common, CURVE_COLUMNS, first=True) + _spread(later, LATER_COLUMNS, first=False)
    grid = grid_of(
        "Accuracy while a task is learned (mean over all tasks but the first, and seeds)",
        "approach, after steps",
        {
            name: {str(step): f"{curve[step]:.3f}" if step in curve else DASH for step in shown}
            for name, curve in curves.items()
        },
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
    columns = {"task": "task right", "accuracy": "accuracy", "accuracy_wrong_task_0": "wrong task = 0"}
    columns["known"] = "task known"
    chance = 1 / plan.tasks
    rows, any_below, any_undefined = {}, False, False
    for name, method, size in product(study.runs, plan.inference, plan.inference_batches):
        found = {head: study.inference(name, size, method, what) for what, head in columns.items()}
        is_below = found["task right"].value < chance - ROUNDING
        any_below |= is_below
        any_undefined |= all(math.isnan(each.value) for each in found.values())
        row = {head: _share(each) for head, each in found.items()}
        row["task right"] += BELOW * is_below
        rows[f"{name}, {method}, {size}"] = row
    below = WORSE if any_below else ""
    words = INFERENCE.format(rows=plan.inference_rows, tasks=plan.tasks, chance=chance, below=below)
    grid = grid_of("With the task inferred", "approach, method, images", rows)
    return [grid, words, *([NO_ANSWER] if any_undefined else [])]


def _finals(study: ContinualStudy) -> Grid:
    """The last row of every accuracy matrix: all tasks after the last one."""
    means = {name: np.mean([run.R[-1] for run in runs], axis=0) for name, runs in study.runs.items()}
    return grid_of(
        "Final accuracy on every task (mean over seeds)",
        "approach",
        {name: {f"task {task}": f"{value:.3f}" for task, value in enumerate(mean)} for name, mean in means.items()},
    )


def _masks(study: ContinualStudy) -> list[Block]:
    """Density, raw, chance and corrected Jaccard index of the masks, mean over pairs of tasks, and a verdict."""
    rows, looked = {}, 0
    reasons: dict[str, None] = {}
    for name, runs in study.runs.items():
        tables = [run.overlap for run in runs if run.overlap is not None]
        levels = [*zip(*((table, table.chance, table.corrected) for table in tables), strict=True)]
        for layer in (*tables[0].layers, None):
            raw, chance, corrected = (
                Estimate.over_seeds([_mean_over_pairs(_at(each, layer)) for each in level]) for level in levels
            )
            verdict = null_verdict(corrected, aligned=True, effective_sample_size=None)
            looked += corrected.missing is None
            if verdict.answer == INCONCLUSIVE:
                reasons[sentence(verdict.lacking[0])] = None
            rows[f"{name}, {'pooled' if layer is None else layer}"] = {
                "density": Estimate.over_seeds([float(np.mean(_at(table.density, layer))) for table in tables]).short(),
                "raw": raw.short(),
                "chance": chance.short(),
                "beyond chance": corrected.short(),
                "is that above 0": SHORT[verdict.answer],
            }
    what = "flipped bits of the masks" if study.plan.score_initialisation == "shared" else "masks"
    return [
        grid_of(f"Jaccard index of the {what} (mean over pairs of tasks and seeds)", "approach, layer", rows),
        MASKS,
        *([f"Inconclusive: {'; or '.join(reasons)}."] if reasons else []),
        *([by_chance(looked, "nulls")] if looked else []),
    ]


def _at(level: Any, layer: str | None) -> NDArray[np.float64]:
    found: NDArray[np.float64] = level.pooled if layer is None else level.by_layer[layer]
    return found


def _mean_over_pairs(matrix: NDArray[np.float64]) -> float:
    return float(np.mean(matrix[np.triu_indices(len(matrix), 1)]))


def _similarities(study: ContinualStudy) -> list[Block]:
    """How each similarity of the first approach goes with the truth, and how often it is above its null."""
    name, runs = next(iter(study.runs.items()))
    rows, looked = {}, 0
    is_ranked = study.known_pairs >= FEWEST_RANKED
    for kind, layer in [(kind, layer) for kind, table in runs[0].similarity.items() for layer in table.layers]:
        tables = [run.similarity[kind] for run in runs]
        values = [float(np.mean(table.values[layer][study.earlier])) for table in tables]
        above = np.concatenate([table.beats_null(layer)[study.earlier] for table in tables])
        looked += above.size
        rows[f"{kind}, {layer}"] = {
            "mean": Estimate.over_seeds(values).short(),
            "pairs above their null": f"{above.sum()} of {above.size}",
            "rank correlation with truth": signed(study.rank_correlation(name, kind, layer)) if is_ranked else DASH,
        }
    if not rows:
        return []
    title = f"Task similarity in the {name} network (every task with those before it; mean over seeds)"
    return [
        grid_of(title, "similarity, batch norm", rows),
        SHUFFLES.format(looked=looked, chance=looked * LEVEL),
        _ranked(study.known_pairs),
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
    rows = {
        f"{name}, {alphas.task}, {layer or 'every layer'}": {"alphas": _chosen(row), "reason": alphas.reasons[layer]}
        for name, runs in study.runs.items()
        for alphas in runs[0].alphas
        if alphas is not None
        for layer, row in alphas.layers.items()
    }
    return [grid_of("Alphas of seed 0", "approach, task, batch norm", rows)] if rows else []


def _chosen(row: Mapping[str, float]) -> str:
    return ", ".join(prior if alpha == 1 else f"{prior} {alpha:.2f}" for prior, alpha in row.items() if alpha) or DASH


def _share(value: Estimate) -> str:
    if math.isnan(value.value):
        return DASH
    return f"{value.value:.3f}" + ("" if math.isnan(value.half_width()) else f" ± {value.half_width():.3f}")


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


Asked = dict[str, dict[str | None, Verdict]]
"""What is asked -> layer -> its verdict."""


def pair_verdicts(study: ContinualStudy, approach: str) -> tuple[Asked, Asked, int]:
    """Judge every pair of tasks, and pairs with a task in common; of these give how many there are in all."""
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

    nulls: Asked = {
        " and ".join(pair): {
            layer: null_verdict(beyond(pair, layer), aligned=True, effective_sample_size=None) for layer in layers
        }
        for pair in pairs
    }
    every = [(first, second) for first, second in combinations(pairs, 2) if set(first) & set(second)]
    contrasts: Asked = {
        f"{' and '.join(first)} against {' and '.join(second)}": {layer: more(first, second, layer) for layer in layers}
        for first, second in every[:MOST_CONTRASTS]
    }
    return nulls, contrasts, len(every)


def _verdicts(study: ContinualStudy, approach: str) -> list[Block]:
    nulls, contrasts, every = pair_verdicts(study, approach)
    head = ("pair", "layers above", "beyond chance, and why")
    blocks: list[Block] = [
        *verdict_grids(f"do masks of {approach} overlap beyond chance?", head, nulls, [ABOVE]),
        by_chance(sum(map(len, nulls.values())), "nulls"),
    ]
    if contrasts:
        head = ("pair against pair", "layers", "first - second, and why")
        question = f"which pair shares more? (masks of {approach})"
        blocks += verdict_grids(question, head, contrasts, [MORE, LESS], numbered=True)
        blocks.append(by_chance(sum(map(len, contrasts.values())), "contrasts"))
    if every > len(contrasts):
        blocks.append(f"{len(contrasts)} of {every} contrasts are shown.")
    of = "within" if study.trainings.get(approach, {}).get("masks") is None else "corrected"
    return [*blocks, READING_PAIRS.format(of=OF[of], over=OVER["seeds"])]


def _not_above(overlaps: SeedOverlap) -> list[Block]:
    found = [overlaps.noise_ceiling(*each) for each in product(overlaps.names, (*overlaps.layers, None))]
    few = sum(not noise_ceiling.low > ROUNDING for noise_ceiling in found)
    return [NOT_ABOVE.format(count=len(found), few=few)] if few else []
