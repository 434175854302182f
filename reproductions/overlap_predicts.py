"""Does overlap predict what fusion forgets? The models of ``fuse_to_forget.py``, pair by pair.

For every pair of models of a seed: how much accuracy their average loses (on the shortcuts of both, on the original
task, and at the worst point of the line between them), against what could have predicted it before averaging: raw and
corrected Fisher overlaps (shared: both on the original sentences; unshared: each on its own conflicting ones; same
input), overall, in the encoder alone and block by block, and the cosine of the models' mean gradients. Spearman's rank
correlation over the six pairs of a seed, mean and 95 % interval over the seeds, and how many relabellings of the four
models do as well: six pairs of four models are not six independent observations, and four shortcuts are few.

    python reproductions/fuse_to_forget.py --data ../shared/data/sst2 --work runs/fuse-to-forget
    python reproductions/overlap_predicts.py --work runs/fuse-to-forget

Measures eight Fishers per seed once more, with eight folds, on the sentences of that study (Fisher type empirical); a
seed that was measured is not measured again. Writes ``reproductions/results/overlap_predicts.json``, ``.md`` and
``.png``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import combinations, permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from records import RESULTS, offer_tables, read_record, write_record, write_tables

from commonweight import Estimate, overlap
from commonweight.base.records import without_nan
from commonweight.base.text import Grid
from commonweight.data.table import open_table
from commonweight.footprints.footprint import Footprint
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.measure import measure
from commonweight.studies.compare.options import ColumnOptions, MeasureOptions
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.continual.metrics import rank_correlation
from commonweight.studies.shortcuts.plan import ORIGINAL, Plan, seed_folders
from commonweight.studies.shortcuts.results import DEPTH, gather
from commonweight.studies.shortcuts.run import SHORTCUTS
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE

NAME = "overlap_predicts"
ENCODER = "bert.encoder"
FOLDS = 8
LEVEL = 0.05
OUTCOMES = ("shortcuts lost", "task lost", "worst point of the line")


def measured(folder, plan: Plan, place: Path, note) -> dict:
    """Corrected overlaps and gradient cosines of one seed, by predictor and pair; measured once."""
    result = place / "measured.json"
    if result.is_file():
        return json.loads(result.read_text(encoding="utf-8"))
    columns = ColumnOptions(text_column=("text",), label_column="label", max_length=plan.max_length)
    cells = {f"{code}/{data}": (code, data) for code in plan.shortcuts for data in (ORIGINAL, code)}
    footprints, gradients = {}, {}
    for name, (code, data) in cells.items():
        note(f"seed {folder.seed}: measuring {name}")
        loaded, table = load_model(str(folder.model(code)), LoadOptions()), open_table(str(folder.measured(data)))
        gradients[name] = mean_gradient(loaded, table, columns)
        footprint = place / name
        if not footprint.exists():
            measure(loaded, table, MeasureOptions(folds=FOLDS, columns=columns), folder=footprint)
        footprints[name] = Footprint.load(footprint)
    note(f"seed {folder.seed}: comparing")
    table = overlap(footprints)
    found: dict[str, dict[str, float]] = {}
    for a, b in combinations(plan.shortcuts, 2):
        pair = f"{a}–{b}"
        for cell, (x, y) in {
            "shared": (f"{a}/{ORIGINAL}", f"{b}/{ORIGINAL}"),
            "unshared": (f"{a}/{a}", f"{b}/{b}"),
        }.items():
            at = table.names.index(x), table.names.index(y)
            put(found, f"corrected {cell}, pooled", pair, table.corrected.pooled[at])
            put(found, f"corrected {cell}, layer mean", pair, table.corrected.layer_mean[at])
            put(found, f"corrected {cell}, encoder", pair, table.roll_up(2).corrected.by_layer[ENCODER][at])
            put(found, f"gradient cosine {cell}, pooled", pair, cosine(gradients[x], gradients[y]))
            put(found, f"gradient cosine {cell}, encoder", pair, cosine(gradients[x], gradients[y], ENCODER))
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name in cells:  # eight folds of a model each: only the numbers stay
        for file in sorted((place / name).iterdir()):
            file.unlink()
    return found


def mean_gradient(loaded, table, columns: ColumnOptions) -> dict[str, torch.Tensor]:
    """The gradient of the mean cross-entropy over all rows, by parameter."""
    model = loaded.model.eval()
    model.zero_grad()
    for batch in prepare(loaded, table, columns, folds=1).batches.with_batch_size(32):
        labels = batch.pop("labels")
        del batch["source_row"]
        torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="sum").backward()
    return {name: p.grad / len(table) for name, p in model.named_parameters() if p.grad is not None}


def cosine(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], below: str = "") -> float:
    names = [name for name in a if name.startswith(below)]
    dot, square_a, square_b = (
        sum(float((x[name].double() * y[name].double()).sum()) for name in names) for x, y in ((a, b), (a, a), (b, b))
    )
    return dot / (square_a * square_b) ** 0.5


def raw(table, plan: Plan) -> dict[str, dict[str, float]]:
    """Raw overlaps of the study itself, by predictor and pair."""
    found: dict[str, dict[str, float]] = {}
    blocks, halves = table.roll_up(DEPTH), table.roll_up(2)
    for a, b in combinations(plan.shortcuts, 2):
        for cell, couples in {
            "shared": [(f"{a}/{ORIGINAL}", f"{b}/{ORIGINAL}")],
            "unshared": [(f"{a}/{a}", f"{b}/{b}")],
            "same input": [(f"{a}/{a}", f"{b}/{a}"), (f"{a}/{b}", f"{b}/{b}")],
        }.items():
            at = tuple(np.array([[table.names.index(x), table.names.index(y)] for x, y in couples]).T)
            levels = {
                "pooled": table.pooled,
                "layer mean": table.layer_mean,
                "encoder": halves.by_layer[ENCODER],
                **{layer: values for layer, values in blocks.by_layer.items() if layer.startswith(ENCODER)},
            }
            for level, values in levels.items():
                put(found, f"raw {cell}, {level}", f"{a}–{b}", values[at].mean())
    return found


def put(found: dict[str, dict[str, float]], predictor: str, pair: str, value) -> None:
    found.setdefault(predictor, {})[pair] = float(value)


def losses(study, seed: int) -> dict[str, dict[str, float]]:
    """What every average of two lost, by outcome and pair."""
    scores, plan = study.scores[seed], study.plan
    found: dict[str, dict[str, float]] = {}
    for a, b in combinations(plan.shortcuts, 2):
        pair, average = f"{a}–{b}", scores[f"{a}+{b}"]

        def lost(code: str, data: str, average=average) -> float:
            return scores[code][f"{data} test"]["accuracy"] - average[f"{data} test"]["accuracy"]

        put(found, OUTCOMES[0], pair, np.mean([lost(code, code) for code in (a, b)]))
        put(found, OUTCOMES[1], pair, np.mean([lost(code, ORIGINAL) for code in (a, b)]))
        line = next(path for path in study.paths[seed] if (path["from"], path["to"]) == (a, b))
        on = np.array(line["points"])
        drops = []
        for data in (a, b):
            accuracy = np.array(line["accuracy"][data])
            drops.append(((1 - on) * accuracy[0] + on * accuracy[-1] - accuracy).max())
        put(found, OUTCOMES[2], pair, np.mean(drops))
    return found


class Found(NamedTuple):
    """How a predictor goes with an outcome."""

    over_seeds: Estimate
    """Spearman's rank correlation over the pairs of models, seed by seed."""

    p: float
    """Share of the relabellings of the models that give as large a mean: one of them changes nothing."""


def correlations(predictors: list[dict], outcomes: list[dict], codes: tuple[str, ...]) -> dict[str, dict[str, Found]]:
    """Correlate every predictor with every outcome.

    Six pairs share four models, and all seeds have the same four shortcuts: a shortcut that is easily lost makes all
    its pairs lose much, in every seed. So an interval over seeds says nothing about other shortcuts. The models are
    relabelled, in all seeds alike, to see what such a mean comes to by chance.
    """
    found: dict[str, dict[str, Found]] = {}
    for predictor in predictors[0]:
        found[predictor] = {}
        for outcome in OUTCOMES:
            every = [
                [
                    rank_correlation(*relabelled(given[predictor], lost[outcome], dict(zip(codes, order, strict=True))))
                    for given, lost in zip(predictors, outcomes, strict=True)
                ]
                for order in permutations(codes)  # the first changes nothing
            ]
            means = np.abs(np.mean(every, axis=1))
            p = float(np.mean(means >= means[0] - 1e-9)) if np.isfinite(means).all() else float("nan")
            found[predictor][outcome] = Found(Estimate.over_seeds(every[0]), p)
    return found


def relabelled(given: dict[str, float], lost: dict[str, float], new: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Values of a predictor and of an outcome, the latter with the models' names exchanged."""
    pairs = [pair.split("–") for pair in given]
    renamed = {frozenset(pair): lost["–".join(pair)] for pair in pairs}
    return (
        np.array(list(given.values())),
        np.array([renamed[frozenset(new[code] for code in pair)] for pair in pairs]),
    )


def weakest(tables: list, predictor: str, codes: tuple[str, ...]) -> float:
    """The smallest effective sample size of a Fisher that a predictor rests on; nan for gradients."""
    if "gradient" in predictor:
        return float("nan")
    data = {code: (ORIGINAL,) if " shared" in predictor else (code,) for code in codes}
    if "same input" in predictor:
        data = dict.fromkeys(codes, codes)
    names = [f"{code}/{each}" for code in codes for each in data[code]]
    return min(table.effective_sample_size[name] for table in tables for name in names)


def shown(found: Found) -> str:
    """Mean, the interval over seeds cut at what a correlation can be, and p."""
    low, high = max(-1.0, found.over_seeds.low), min(1.0, found.over_seeds.high)
    return f"{found.over_seeds.value:+.2f} [{low:+.2f}, {high:+.2f}], p {found.p:.2f}"


def in_words(found: dict[str, dict[str, Found]], outcomes: list[dict], rows: int) -> list[str]:
    """What may be said of the table, and what not."""
    every = [each for by in found.values() for each in by.values() if each.p == each.p]
    small = sum(each.p <= LEVEL for each in every)
    excluding = sum(each.over_seeds.low > 0 or each.over_seeds.high < 0 for each in every)
    task = [value for lost in outcomes for value in lost[OUTCOMES[1]].values()]
    return [
        f"Intervals (95 %, over {len(outcomes)} seeds, cut at ±1) are about other trainings of these four shortcuts. "
        "Whether a predictor holds for other shortcuts is asked by relabelling the four models, in all seeds alike: p "
        "is the share of the 24 relabellings whose mean correlation is as far from 0 (the smallest possible is "
        f"{1 / 24:.2f}). Of {len(every)} correlations {small} have p up to {LEVEL}, where {len(every) / 24:.0f} "
        f"would by chance; {excluding} intervals exclude 0.",
        f"* rests on Fishers with an effective sample size below {SMALLEST_EFFECTIVE}, and decides nothing. The task "
        f"loses {min(task):+.3f} to {max(task):+.3f}, where the standard error of one accuracy of .88 on {rows} rows "
        f"is about {(0.88 * 0.12 / rows) ** 0.5:.3f}: there is nothing to predict.",
    ]


def corrected(predictors: list[dict], pairs: list[str]) -> Grid:
    """What is left of shared − unshared once noise is divided out."""
    rows = []
    for pair in pairs:
        cells = {
            (kind, cell): Estimate.over_seeds([given[f"{kind} {cell}, pooled"][pair] for given in predictors])
            for kind in ("raw", "corrected")
            for cell in ("shared", "unshared")
        }
        differences = [cells[kind, "shared"] - cells[kind, "unshared"] for kind in ("raw", "corrected")]
        rows.append((pair, *(each.short() for each in (*cells.values(), *differences))))
    head = (
        "pair",
        "raw: shared",
        "unshared",
        "corrected: shared",
        "unshared",
        "raw difference",
        "corrected difference",
    )
    return Grid(
        f"Overlaps corrected by noise ceilings, {FOLDS} folds (Fisher type empirical; means over seeds)",
        head,
        tuple(rows),
    )


def draw(predictors: list[dict], outcomes: list[dict], path: Path) -> None:
    shown = [
        name for name in ("raw shared, pooled", "raw unshared, pooled", "corrected unshared, pooled",
                          "gradient cosine unshared, pooled") if name in predictors[0]
    ]  # fmt: skip
    figure = Figure(figsize=(3.2 * len(shown), 6), layout="constrained")
    axes = figure.subplots(2, len(shown), sharey="row", sharex="col", squeeze=False)
    for row, outcome in zip(axes, OUTCOMES[:2], strict=True):
        row[0].set_ylabel(f"accuracy: {outcome}")
        for ax, name in zip(row, shown, strict=True):
            for seed, (given, lost) in enumerate(zip(predictors, outcomes, strict=True)):
                pairs = list(lost[outcome])
                ax.scatter([given[name][p] for p in pairs], [lost[outcome][p] for p in pairs], label=f"seed {seed}")
            ax.spines[["top", "right"]].set_visible(False)
    for ax, name in zip(axes[-1], shown, strict=True):
        ax.set_xlabel(name)
    axes[0][0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


def tables(predictors: list[dict], outcomes: list[dict], effective: dict[str, float], rows: int) -> list:
    """Lay out what was found."""
    pairs = list(outcomes[0][OUTCOMES[0]])
    found = correlations(predictors, outcomes, tuple(dict.fromkeys(code for pair in pairs for code in pair.split("–"))))
    correlated = tuple(
        (f"{name}{' *' if effective[name] < SMALLEST_EFFECTIVE else ''}", *(shown(each) for each in by.values()))
        for name, by in found.items()
    )
    lost = tuple(
        (pair, *(Estimate.over_seeds([lost[outcome][pair] for lost in outcomes]).short() for outcome in OUTCOMES))
        for pair in pairs
    )
    return [
        Grid("Spearman's rank correlation over the six pairs of models", ("predictor", *OUTCOMES), correlated),
        *in_words(found, outcomes, rows),
        corrected(predictors, pairs),
        Grid("Accuracy lost (own model − average of two; means over seeds)", ("pair", *OUTCOMES), lost),
    ]


def read(options, note) -> dict:
    """Collect what predicts and what is lost from the finished study, and measure what is missing."""
    plan = Plan.of_run(options.work, SHORTCUTS)
    folders = seed_folders(options.work, plan)
    study = gather(plan, folders)
    predictors, outcomes = [], []
    for index, folder in enumerate(folders):
        place = options.measures / folder.path.name
        place.mkdir(parents=True, exist_ok=True)
        predictors.append(raw(study.tables["empirical"][index], plan) | measured(folder, plan, place, note))
        outcomes.append(losses(study, index))
    found = correlations(predictors, outcomes, plan.shortcuts)
    return {
        "scored_rows": plan.scored_rows,
        "predictors": predictors,
        "outcomes": outcomes,
        "rank_correlation": {
            name: {outcome: {"mean": e.over_seeds.value, "seeds": e.over_seeds.replicates, "p": e.p}
                   for outcome, e in by.items()} for name, by in found.items()
        },
        "effective_sample_size": {name: weakest(study.tables["empirical"], name, plan.shortcuts) for name in found},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/fuse-to-forget"), help="the finished study")
    parser.add_argument("--measures", type=Path, default=Path("runs/overlap-predicts"))
    offer_tables(parser)
    options = parser.parse_args()
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    if not options.tables:
        write_record(NAME, without_nan(read(options, note)))
    record = read_record(NAME)
    effective = {name: np.nan if size is None else size for name, size in record["effective_sample_size"].items()}
    write_tables(NAME, tables(record["predictors"], record["outcomes"], effective, record["scored_rows"]))
    draw(record["predictors"], record["outcomes"], RESULTS / f"{NAME}.png")


if __name__ == "__main__":
    main()
