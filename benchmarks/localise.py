"""What a set of weights costs on a data set: grafts and resets against a plain evaluation of the same rows.

    python benchmarks/localise.py --out benchmarks/results/localise.json

The bound is 1.15 of a plain evaluation plus one pass over the weights. Contenders run in turn, round after round; a
figure is the median over the rounds, the ratio the median of the ratios within a round. ``choosing`` is the time of one
top set over all weights, ``bytes of a set`` what it takes, beside that of the model.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch
from fisher import bert, environment, interleave

from commonweight import change_footprint
from commonweight.interventions import Swappable, row_scores, top_set

SIZES = {"bert-22M": (384, 6, 12), "bert-110M": (768, 12, 12)}
FRACTION = 0.05
ROWS, BATCH = 256, 32
BOUND = 1.15


def measured(size: tuple[int, int, int], rounds: int) -> dict:
    """Time one model's cells."""
    case = bert(*size, BATCH, ROWS // BATCH, BOUND)
    model, start = case.model, copy.deepcopy(case.model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.01)
    change = change_footprint(model, start)
    chosen = top_set(change, FRACTION)
    pair = Swappable.of(model, start)
    weights = dict(model.named_parameters())

    def reset() -> None:
        with pair.reset(chosen):
            row_scores(model, case.batches)

    def graft() -> None:
        with pair.graft(chosen):
            row_scores(model, case.batches)

    def one_pass() -> None:
        for name, weight in weights.items():
            torch.where(weight > 0, weight, pair.start[name])

    runs = {
        "evaluation": lambda: row_scores(model, case.batches),
        "pass over the weights": one_pass,
        "reset": reset,
        "graft": graft,
        "choosing": lambda: top_set(change, FRACTION),
    }
    for run in runs.values():
        run()
    seconds = interleave(runs, rounds)
    base = [a + b for a, b in zip(seconds["evaluation"], seconds["pass over the weights"], strict=True)]
    return {
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "ratio": {
            way: statistics.median(mine / both for mine, both in zip(seconds[way], base, strict=True))
            for way in ("reset", "graft")
        },
        "bytes of a set": sum(chosen.packed(name, 0, -(-weights[name].numel() // 8)).numel() for name in chosen),
        "bytes of the model": sum(weight.nbytes for weight in weights.values()),
    }


def main() -> None:
    """Time every size, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found = {"environment": environment(), "rows": ROWS, "fraction": FRACTION, "bound": BOUND, "cases": {}}
    for name, size in SIZES.items():
        torch.manual_seed(0)
        found["cases"][name] = measured(size, asked.rounds)
        print(name, found["cases"][name], flush=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
