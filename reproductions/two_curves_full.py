"""The Fisher half of two_curves.py at the length of the paper: does the shape come from training, or from the start?

``two_curves.py`` trains on 10,000 images for 10 epochs. Here are 60,000 images and 100 epochs, stochastic gradient
descent at the learning rate 1e-3, six hidden layers of 100: all that Kirkpatrick et al. (2017) state for their figure
2C (3C in PNAS). They state no momentum, so there is none; batches of 64, strength 100 of the penalty, the start by
He et al. (2015) and measuring are those of ``two_curves.py``. Squares of 8 and 26 pixels; in sequence with and without
elastic weight consolidation, and the start itself, untrained.

    python reproductions/two_curves_full.py --data ../shared/data/mnist --work runs/two-curves-full

A seed takes about 15 minutes of one quiet core. Networks are kept: the same command goes on where it stopped, and
measures them again. Intervals are over the folds of the 2,000 test images, as there are few seeds: about other images,
not about other trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from two_curves import Settings, accuracy, copies, importance, kept, learn, perceptron, read, tasks, write
from two_curves_found import LAYERS, PAIRS
from two_curves_report import protocol

import commonweight
from commonweight.base.estimate import Estimate, signed
from commonweight.base.records import without_nan
from commonweight.base.text import Grid, number, to_markdown
from commonweight.transfer.ewc import ewc_penalty

if TYPE_CHECKING:
    from torch import nn

    from commonweight.base.text import Block
    from commonweight.overlaps.table.table import OverlapTable

NAME = "two_curves_full"
SQUARES = ("8 px", "26 px")
ARMS = {
    "ewc": "in sequence with EWC",
    "sequence": "in sequence without EWC",
    "untrained": "the start itself, untrained",
}
OF = {"corrected": "corrected", "above_null": "corrected − null"}
PROTOCOL = {
    "rows": 60_000,
    "test_rows": 2_000,
    "epochs": 100,
    "batch_size": 64,
    "rate": 1e-3,
    "momentum": 0.0,
    "strength": 100.0,
}
Tables = dict[str, dict[str, "OverlapTable"]]
"""Of one seed: arm -> square -> table."""


def of_seed(folder: Path, images, seed: int, settings: Settings, note) -> tuple[Tables, dict]:
    """Train what is missing, and measure everything."""
    stream = tasks(images, seed, settings.rows, settings)
    base = stream[0]
    first = kept(folder / "first", perceptron(seed), lambda net: learn(net, base, seed, settings))
    anchor, earlier = copies(first), importance(first, base)
    accuracies: dict = {"first": accuracy(first, base)}
    note(f"seed {seed}: first task {accuracies['first']:.3f}")
    untrained = perceptron(seed)
    start = importance(untrained, base)
    tables: Tables = {arm: {} for arm in ARMS}
    for square in SQUARES:
        task = stream[1 + PAIRS.index(square)]
        tables["untrained"][square] = commonweight.overlap({"first": start, "second": importance(untrained, task)})
        for arm in ("ewc", "sequence"):

            def train(net: nn.Module, task=task, arm=arm) -> None:
                def penalty() -> torch.Tensor:
                    return ewc_penalty(net, earlier, anchor, strength=settings.strength)

                net.load_state_dict(anchor)
                learn(net, task, seed + 1, settings, penalty if arm == "ewc" else None)

            net = kept(folder / f"{arm}, {square}", perceptron(seed), train)
            tables[arm][square] = commonweight.overlap({"first": earlier, "second": importance(net, task)})
            found = {"first, after second": accuracy(net, base), "second": accuracy(net, task)}
            accuracies[f"{arm}, {square}"] = found
            note(f"seed {seed}, {square}, {arm}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
    return tables, accuracies


Measure = Callable[[str, str], Estimate]
"""Square, layer -> number."""


def differences(measure: Measure) -> dict[str, Estimate]:
    return {
        "26 px: last over first layer": measure("26 px", "out") - measure("26 px", "fc1"),
        "26 px: sixth over first layer": measure("26 px", "fc6") - measure("26 px", "fc1"),
        "8 px: last over first layer": measure("8 px", "out") - measure("8 px", "fc1"),
        "8 px over 26 px, first layer": measure("8 px", "fc1") - measure("26 px", "fc1"),
        "8 px over 26 px, last layer": measure("8 px", "out") - measure("26 px", "out"),
    }


def measures(of_seed: dict) -> dict[tuple[str, str], Measure]:
    """Arm and what of it is looked at -> the number by square and layer."""

    def measure(arm: str, words: str) -> Measure:
        found = of_seed["layers"][f"{arm}, {words}"]
        return lambda square, layer: Estimate(
            found[square][layer]["value"], tuple(found[square][layer]["replicates"]), "folds"
        )

    return {(arm, words): measure(arm, words) for arm in ARMS for words in OF.values()}


def report(record: dict) -> str:
    blocks: list[Block] = [
        "Half a 95 % interval behind ±, over 8 folds of the test images: about other images for the same trained "
        "networks. A seed is one training, so numbers stand without a verdict; the start itself has learned nothing. "
        "Overlaps of a layer are normalised within it.",
        protocol(record["settings"], len(record["seeds"])),
    ]
    for seed, of_seed in enumerate(record["seeds"]):
        found, scores = measures(of_seed), of_seed["accuracy"]
        asked = {f"{ARMS[arm]}, {words}": differences(measure) for (arm, words), measure in found.items()}
        head = ("", *next(iter(asked.values())))
        rows = tuple((name, *map(signed, each.values())) for name, each in asked.items())
        blocks.append(Grid(f"Differences, seed {seed}", head, rows))
        rows = tuple(
            (
                f"{ARMS[arm]}, {square}, {words}",
                *(signed(measure(square, k) - found["untrained", words](square, k)) for k in LAYERS),
            )
            for (arm, words), measure in found.items()
            if arm != "untrained"
            for square in SQUARES
        )
        blocks.append(Grid(f"Less the same of the untrained start, seed {seed}", ("", *LAYERS), rows))
        rows = tuple(
            (f"{ARMS[arm]}, {square}, {words}", *(measure(square, k).short() for k in LAYERS))
            for (arm, words), measure in found.items()
            for square in SQUARES
        )
        blocks.append(Grid(f"Fisher overlap, seed {seed}", ("", *LAYERS), rows))
        rows = (
            ("first task, alone", number(scores["first"]), ""),
            *(
                (f"{ARMS[arm]}, {square}", *map(number, scores[f"{arm}, {square}"].values()))
                for arm in ("ewc", "sequence")
                for square in SQUARES
            ),
        )
        blocks.append(Grid(f"Accuracy, seed {seed}", ("", "first task", "second task"), rows))
    return to_markdown(blocks)


def recorded(tables: Tables, accuracies: dict) -> dict:
    """One seed: every overlap with its values without each fold, and the differences."""

    def of_layer(value: Estimate) -> dict:
        return {"value": value.value, "low": value.low, "high": value.high, "replicates": value.replicates}

    found = {
        "accuracy": accuracies,
        "layers": {
            f"{arm}, {words}": {
                square: {k: of_layer(tables[arm][square].estimate(of, "first", "second", k)) for k in LAYERS}
                for square in SQUARES
            }
            for arm in ARMS
            for of, words in OF.items()
        },
    }
    asked = {
        f"{arm}, {words}": {
            question: {"value": value.value, "low": value.low, "high": value.high}
            for question, value in differences(measure).items()
        }
        for (arm, words), measure in measures(found).items()
    }
    return {**found, "differences": asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/two-curves-full"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="write the tables anew from the JSON; measure nothing")
    settings = parser.parse_args(namespace=Settings())
    if settings.tables:
        text = report(read(settings.results / f"{NAME}.json"))
        (settings.results / f"{NAME}.md").write_text(text, encoding="utf-8")
        return
    if settings.data is None:
        parser.error("give --data, the folder of MNIST")
    for key, value in PROTOCOL.items():
        setattr(settings, key, value)
    torch.set_num_threads(1)
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    images = commonweight.open_images(str(settings.data))
    asked = {"settings": PROTOCOL, "data_sha256": images.digest}
    if (settings.work / "run.json").exists():
        if read(settings.work / "run.json") != asked:
            parser.error(f"{settings.work} holds a run with other settings; give another --work")
    else:
        write(settings.work / "run.json", asked)
    versions = {"torch": torch.__version__, "commonweight": commonweight.__version__}
    record = {"settings": PROTOCOL, "data_sha256": images.digest, "versions": versions, "seeds": []}
    for seed in range(settings.seeds):
        record["seeds"].append(recorded(*of_seed(settings.work / f"seed-{seed}", images, seed, settings, note)))
        settings.results.mkdir(parents=True, exist_ok=True)
        written = json.dumps(without_nan(record), separators=(",", ":"))
        (settings.results / f"{NAME}.json").write_text(written + "\n", encoding="utf-8")
        (settings.results / f"{NAME}.md").write_text(report(record), encoding="utf-8")
        note(f"results of {seed + 1} seeds written")


if __name__ == "__main__":
    main()
