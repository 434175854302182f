"""Which key should a row without a source row be put into its fold by: its running number, or its content?

    python reproductions/fold_keys.py --data ../shared/data/mnist

Two networks near one start are measured on 200 rows each. The rows of the second are those of the first, changed as
loaders change them. Each case is measured three times, with rows put into folds by running number, by inputs, and by
inputs and labels. The truth is the corrected overlap on 20,000 rows of the same kind. Writes
``reproductions/results/fold_keys.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace

import numpy as np
import torch
from records import offer_tables, read_record, write_record, write_tables
from safeguards import near
from torch import Tensor

import commonweight
from commonweight.base.text import Grid

NAME = "fold_keys"
REPETITIONS, ROWS, FOLDS = 40, 200, 8


def digests(*columns: Tensor) -> Tensor:
    """63 bits of each row's bytes."""
    rows = zip(*([row.numpy().tobytes() for row in column] for column in columns), strict=True)
    return torch.tensor([int.from_bytes(hashlib.blake2b(b"".join(row), digest_size=8).digest()) >> 1 for row in rows])


KEYS = {
    "running number": lambda *columns: torch.arange(len(columns[0])),
    "inputs": lambda *columns: digests(columns[0]),
    "inputs and labels": digests,
}


def shuffled(x, y):
    """The same rows in another order."""
    order = torch.randperm(len(x))
    return x[order], y[order]


def relabelled(x, y):
    """The same rows with the labels of another task."""
    return x, (y + 1) % 10


def trigger(x, y):
    """The same rows, marked: the first three inputs are set, and decide the label."""
    x = x.clone()
    x[:, :3] = 2.0
    return x, torch.zeros_like(y)


def augmented(x, y):
    """The same rows with other noise, as of an augmentation."""
    return x + 0.1 * x.std() * torch.randn_like(x), y


def moved(x, y):
    """The same rows, their inputs rolled by one: a shift of the picture."""
    return x.roll(1, dims=1), y


CHANGES = {
    "the same rows, shuffled": shuffled,
    "the same rows, other labels": relabelled,
    "rows with a trigger planted": trigger,
    "augmented rows": augmented,
    "rows shifted by one input": moved,
}


def measured(model, x, y, key) -> commonweight.Footprint:
    """A Fisher with folds by a key."""
    batch = {"input": x, "labels": y, "source_row": key(x, y)}
    footprint = commonweight.fisher(model, [batch], folds=FOLDS, loss="classification")
    return replace(footprint, row_digests={})  # with them the library refuses the first case


def one(start, by: float, draw, change, many: int) -> dict:
    """Measure one case again and again: how far the corrected overlap is from the truth, and how often it is held."""
    found: dict = {name: {"off": [], "held": 0} for name in KEYS}
    for _ in range(REPETITIONS):
        a, b = (near(start(), by) for _ in range(2))
        x, y = draw(many)
        truth = overlap_of(a, b, (x, y), change(*draw(many)), KEYS["running number"]).value
        rows = draw(ROWS)
        others = change(*rows)
        for name, key in KEYS.items():
            estimate = overlap_of(a, b, rows, others, key)
            found[name]["off"].append(estimate.value - truth)
            found[name]["held"] += estimate.low <= truth <= estimate.high
    return {
        name: {"mean": float(np.mean(each["off"])), "spread": float(np.std(each["off"])), "held": each["held"]}
        for name, each in found.items()
    }


def overlap_of(a, b, rows, others, key) -> commonweight.Estimate:
    """The corrected overlap of two networks, each on rows of its own."""
    prints = {"a": measured(a, *rows, key), "b": measured(b, *others, key)}
    return commonweight.overlap(prints).estimate("corrected", "a", "b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of MNIST")
    offer_tables(parser)
    options = parser.parse_args()
    if not options.tables:
        if options.data is None:
            parser.error("give --data, the folder of MNIST")
        write_record(NAME, measure(commonweight.open_images(options.data)))
    record = read_record(NAME)
    rows = tuple(
        (case, *(f"{each['mean']:+.3f} ({each['held']} of {REPETITIONS})" for each in found.values()))
        for case, found in record["found"].items()
    )
    title = f"Corrected overlap less the truth (intervals that hold it), {ROWS} rows, folds by"
    write_tables(NAME, [Grid(title, ("rows of the second network", *KEYS), rows)])


def measure(images) -> dict:
    torch.set_num_threads(1)
    pixels = images.train.flatten(1).float().div(255)
    labels = images.train_labels

    def sparse(count):
        return torch.randn(count, 40) * (torch.rand(count, 40) < 0.08), torch.randint(10, (count,))

    def mnist(count):
        chosen = torch.randperm(len(pixels))[:count]
        return pixels[chosen], labels[chosen]

    settings = {
        "40 sparse inputs, linear": (lambda: torch.nn.Linear(40, 10), 0.05, sparse),
        "MNIST, 784-32-10": (
            lambda: torch.nn.Sequential(torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)), 0.01, mnist
        ),
    }  # fmt: skip
    record: dict = {"repetitions": REPETITIONS, "rows": ROWS, "folds": FOLDS, "found": {}}
    for setting, (start, by, draw) in settings.items():
        for case, change in CHANGES.items():
            torch.manual_seed(0)
            record["found"][f"{setting}: {case}"] = one(start, by, draw, change, 20_000)
            print(setting, case, record["found"][f"{setting}: {case}"], flush=True)
    return record


if __name__ == "__main__":
    main()
