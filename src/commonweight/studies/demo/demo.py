"""The demonstration, in four parts; everything it needs is made here: reviews, tokenizer, encoders, digits.

First two tiny encoders from one start, one taught films, one taught food, compared as any others by
:func:`commonweight.studies.compare.compare`. The same two are then localised and merged. Last come the studies of
shortcuts and of continual learning, made small.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.folders import Kind, check_writable, replacing
from commonweight.base.text import Block, Grid, Note, number, silent
from commonweight.data.reviews import DOMAINS, LABELS, best_accuracy, best_loss, label_of, reviews
from commonweight.data.shortcuts.record import without_bars
from commonweight.report.files import grid_of
from commonweight.report.verdicts import verdict_grids
from commonweight.studies.compare.compare import Comparison, compare_and_write
from commonweight.studies.compare.options import CompareOptions, MeasureOptions
from commonweight.studies.continual.plan import Plan as ContinualPlan
from commonweight.studies.continual.run import run_and_write as run_continual
from commonweight.studies.demo.encoder import LONGEST, encode_reviews, make_start, make_tokenizer, save, train
from commonweight.studies.localise.plan import LocaliseOptions
from commonweight.studies.localise.run import localise
from commonweight.studies.merge_check.plan import MergeCheckOptions
from commonweight.studies.merge_check.run import merge_check
from commonweight.studies.run.folder import check_place
from commonweight.studies.run.runs import DEMO
from commonweight.studies.shortcuts.plan import CHECKPOINT
from commonweight.studies.shortcuts.plan import Plan as ShortcutPlan
from commonweight.studies.shortcuts.run import run_and_write as run_shortcuts
from commonweight.studies.shortcuts.scoring import Score, ScoredRows, score
from commonweight.verdicts.rules import LESS, MORE, SMALLEST_EFFECTIVE
from commonweight.verdicts.words import by_chance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from commonweight.data.reviews import Domain, Review
    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.studies.localise.results import Localisation
    from commonweight.studies.merge_check.results import MergeCheck
    from commonweight.studies.shortcuts.results import ShortcutStudy

START = "start"
LOCALISED, MERGED = "localised", "merged"
SAVED = Kind("saved data set", "dataset_dict.json")
AMBIGUOUS = 0.1
"""Share of reviews whose label is a fair coin: no model reaches zero loss, so no handful of rows carries the Fisher."""

DEPTH = 4
"""Module levels of the layer table: one row for each embedding, each encoder block, the pooler and the head."""

INTRODUCTION = (
    "Two copies of one untrained three-layer encoder were trained to tell good from bad, one on film reviews and one "
    "on food reviews. Both must learn what 'not' and 'good' do. Only one of them meets 'gripping', and only the other "
    "'soggy'. Then each model was measured on held-out reviews of both kinds. Its diagonal Fisher says which weights "
    "its answers depend on there."
)

CAUTION = (
    "How to read this. An overlap of 1 means the same distribution of importance over the weights; 0 means disjoint "
    "ones. Two samples of one and the same Fisher overlap by less than 1, too: by their noise ceilings. Corrected "
    "overlaps are taken between different reviews and divided by the noise ceilings, so compare these. The null is "
    "what they would be if the weights of one were shuffled. Intervals (95 %) are over folds of the reviews: they are "
    "about other reviews and the same models, not about other training runs. No overlap alone says how much is shared. "
    "A contrast on the same reviews says which pair shares more. The start, which has learned nothing, is the control."
)

PAIRS = {
    "each on its own": ("films/films", "food/food"),
    "both on films": ("films/films", "food/films"),
    "both on food": ("films/food", "food/food"),
    "start on both": ("start/films", "start/food"),
    "start and films on films": ("start/films", "films/films"),
    "start and food on food": ("start/food", "food/food"),
}
"""The pairs of footprints the tables show."""

CONTRASTS = {
    f"{both} against {start}": (PAIRS[both], PAIRS[start])
    for both, start in (("both on films", "start and films on films"), ("both on food", "start and food on food"))
}
"""Same reviews on both sides: do the two trained models share more than one of them does with the start?"""

CONTINUAL = ContinualPlan(
    data="digits",
    scenario="rotated",
    tasks=5,
    approaches=("classic", "transfer", "initialised-probed", "initialised-random"),
    seeds=2,
    hidden=(100, 100),
    epochs=4,
    batch_size=32,
    curve_points=8,
    curve_rows=200,
    inference_rows=60,
    inference_batches=(20,),
)
"""What the demonstration asks of continual learning: five rotations of the embedded digits in one network."""


TRIED = MeasureOptions(folds=1)
"""Nothing is asked of the noise of the Fishers in trials."""

LOCALISE = LocaliseOptions(fractions=(0.05,), primary=0.05, draws=3, resamples=400, examples=300, measure=TRIED)
"""What the demonstration asks of the weights that the saliencies of the two encoders name."""

MERGE_CHECK = MergeCheckOptions(scales=(0.5,), draws=2, resamples=400, examples=300, measure=TRIED)
"""What it asks of merging the two."""


@dataclass(frozen=True)
class DemoSize:
    """How much is trained and measured."""

    training_rows: int = 6000
    held_out_rows: int = 1500
    steps: int = 500
    folds: int = 8


@dataclass(frozen=True)
class Demo:
    """What the first part found."""

    scores: dict[str, dict[Domain, Score]]
    """Model -> domain of held-out rows -> score."""

    best: dict[Domain, Score]
    """Domain -> the best that can be expected on its held-out rows, given how many are truly ambiguous."""

    comparison: Comparison


def run_demo(folder: Path, *, size: DemoSize | None = None, seed: int = 0, note: Note = silent) -> Demo:
    """Train, measure, compare."""
    size = size or DemoSize()
    check_demo_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEMO).write_text(json.dumps({"seed": seed, "ambiguous": AMBIGUOUS} | asdict(size)) + "\n")
    tokenizer = make_tokenizer()
    held_out = {domain: _held_out(domain, size, seed) for domain in DOMAINS}
    encoded = {domain: ScoredRows(encode_reviews(tokenizer, rows), 0) for domain, rows in held_out.items()}
    start = make_start(seed)
    models = {START: start}
    for domain in DOMAINS:
        note(f"training a copy of the start on {size.training_rows} {domain} reviews, {size.steps} steps")
        rows = reviews(size.training_rows, seed=seed, domain=domain, ambiguous=AMBIGUOUS)
        models[domain] = copy.deepcopy(start)
        train(models[domain], encode_reviews(tokenizer, rows), steps=size.steps, seed=seed)
    for name, model in models.items():
        model.eval()
        save(model, tokenizer, folder / "models" / name)
    (folder / "data").mkdir(exist_ok=True)
    for domain, rows in held_out.items():
        lines = [json.dumps({"text": row["text"], "label": row["label"]}) for row in rows]
        (folder / "data" / f"{domain}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    comparison = compare_and_write(
        [str(folder / "models" / name) for name in models],
        [str(folder / "data" / f"{domain}.jsonl") for domain in DOMAINS],
        folder / "comparison",
        CompareOptions(measure=MeasureOptions(folds=size.folds)),
        fresh=True,
        note=note,
    )
    return Demo(
        scores={name: {domain: score(model, encoded[domain]) for domain in DOMAINS} for name, model in models.items()},
        best={domain: _best(rows) for domain, rows in held_out.items()},
        comparison=comparison,
    )


def check_demo_folder(folder: Path) -> None:
    """Check that the demonstration may write to a folder."""
    check_place(folder, DEMO)
    check_writable(folder / "comparison")


def _held_out(domain: Domain, size: DemoSize, seed: int) -> list[Review]:
    """Reviews that differ from each other: copies in other folds would pass for agreement."""
    rows = reviews(2 * size.held_out_rows, seed=seed, domain=domain, ambiguous=AMBIGUOUS, start=size.training_rows)
    distinct = {row["text"]: row for row in reversed(rows)}
    return list(reversed(distinct.values()))[: size.held_out_rows]


def _best(rows: list[Review]) -> Score:
    ambiguous = sum(label_of(row["text"]) is None for row in rows) / len(rows)
    return Score(best_accuracy(ambiguous), best_loss(ambiguous))


def report(found: Demo) -> list[Block]:
    """Lay out the first part."""
    table = found.comparison.table
    rolled = table.roll_up(DEPTH)
    effective = table.effective_sample_size
    scores = grid_of(
        "Held-out reviews: accuracy and loss (nats)",
        "model",
        {name: _scores(row) for name, row in (found.scores | {"best attainable": found.best}).items()},
    )
    few = [name for name in table.names if not effective[name] >= SMALLEST_EFFECTIVE]
    too_few = f"Effective sample size below {SMALLEST_EFFECTIVE}: {', '.join(few)}. Their overlaps decide nothing."
    return [
        INTRODUCTION,
        Grid(scores.title, scores.header, scores.rows[:-1], scores.rows[-1:]),
        "The best attainable is below 1 because some reviews are truly ambiguous: their label was drawn at random.",
        grid_of(
            "Fisher overlap, all weights together", "pair", {words: _pooled(table, *PAIRS[words]) for words in PAIRS}
        ),
        grid_of(
            "Corrected overlap, layer by layer",
            "layer",
            {
                layer: {
                    words: number(rolled.estimate("corrected", *pair, layer).value) for words, pair in PAIRS.items()
                }
                for layer in rolled.layers
            },
        ),
        *_verdicts(rolled),
        table.alignment.sentence(),
        grid_of(
            "Effective sample size (how many examples carry the trace)",
            "model/reviews",
            {n: {"examples": str(table.counts[n]), "effective": f"{effective[n]:.1f}"} for n in table.names},
        ),
        *([too_few] if few else []),
        CAUTION,
    ]


def _scores(row: Mapping[Domain, Score]) -> dict[str, str]:
    return {f"{name}, {what}": f"{value:.3f}" for name, found in row.items() for what, value in asdict(found).items()}


def _pooled(table: OverlapTable, a: str, b: str) -> dict[str, str]:
    ceilings = [number(float(table.noise_ceiling.pooled[table.names.index(name)])) for name in (a, b)]
    return {
        "raw": number(table.estimate("raw", a, b).value),
        "noise ceiling of the first": ceilings[0],
        "of the second": ceilings[1],
        "corrected": table.estimate("corrected", a, b).short(),
        "null": number(table.estimate("null", a, b).value),
    }


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


def run_trial_demo(
    folder: Path,
    *,
    localising: LocaliseOptions = LOCALISE,
    merging: MergeCheckOptions = MERGE_CHECK,
    note: Note = silent,
) -> tuple[Localisation, MergeCheck]:
    """Localise and merge the two encoders that :func:`run_demo` trained; trials of an earlier pair go."""
    models: dict[str, str | Path] = {domain: folder / "models" / domain for domain in DOMAINS}
    data: dict[str, str | Path] = {domain: folder / "data" / f"{domain}.jsonl" for domain in DOMAINS}
    for place in (folder / LOCALISED, folder / MERGED):
        shutil.rmtree(place, ignore_errors=True)
    start = folder / "models" / START
    return (
        localise(models, data, start, folder / LOCALISED, localising, note=note),
        merge_check(models, data, start, folder / MERGED, merging, note=note),
    )


def run_shortcut_demo(folder: Path, *, seed: int = 0, note: Note = silent) -> ShortcutStudy:
    """Plant three shortcuts, train, measure, compare, average; what is there from an earlier run is not done again."""
    if not (folder / "reviews").exists():
        _write_reviews(folder / "reviews", {"train": 4000, "validation": 1000, "test": 500}, seed)
    if not (folder / "encoder").exists():
        with replacing(folder / "encoder", CHECKPOINT) as beside:
            save(make_start(seed), make_tokenizer(), beside)
    plan = ShortcutPlan(
        model=str(folder / "encoder"),
        data=str(folder / "reviews"),
        epochs=3.0,
        learning_rate=1e-3,
        batch_size=16,
        max_length=LONGEST,
        measured_rows=1000,
        fisher_types=("empirical",),
        fused_footprints=False,
        path_points=6,
        path_rows=200,
    )
    study = run_shortcuts(folder / "run", plan, note=note)
    assert study is not None  # noqa: S101 - all steps were asked for
    return study


def _write_reviews(place: Path, sizes: Mapping[str, int], seed: int) -> None:
    import datasets

    classes = datasets.ClassLabel(names=list(LABELS))
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    splits: dict[str, Any] = {}
    start = 0
    for name, count in sizes.items():
        rows = reviews(count, seed=seed, ambiguous=AMBIGUOUS, start=start)
        columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
        splits[name] = datasets.Dataset.from_dict(columns, features=features)
        start += count
    place.parent.mkdir(parents=True, exist_ok=True)
    with without_bars(), replacing(place, SAVED) as beside:
        datasets.DatasetDict(splits).save_to_disk(str(beside))


def run_continual_demo(folder: Path, *, plan: ContinualPlan = CONTINUAL, note: Note = silent) -> ContinualStudy:
    """Train, measure, infer; what is there from an earlier demonstration is not done again."""
    return run_continual(folder, plan, note=note)
