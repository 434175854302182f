"""Regimes of interval_coverage.py: three Fishers a, b, c with known means, and how examples scatter around them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

WEIGHTS = 300
HALF = WEIGHTS // 2
PARTS = {"one": slice(HALF), "two": slice(HALF, None)}
"""Two layers of half the weights each."""

TRAININGS = 20_000
"""Drawn to know the mean over trainings."""


def normal(generator, shape):
    return generator.standard_normal(shape, dtype=np.float32)


@dataclass
class Regime:
    """Per-example Fishers: mean x an example's size x noise of its own."""

    words: str
    spread: float = 0.5
    """Of an example's size, on a logarithmic scale."""

    rare: str = ""
    """In which Fishers a weight matters to 1 % to 100 % of the examples only."""

    sizes_shared: bool = False
    loud: float = 0.0
    """Share of the examples that carry half of the trace, in other weights."""

    correlation: float = 0.5
    """Of the gradients of one example in different Fishers."""

    structure: Literal["apart", "equal", "rows and columns", "columns"] = "apart"
    """Of the means: b is nearer to a than c; c is b; b and c have rows and columns of a; nothing but columns."""

    rows: int = 1
    """Of each layer's matrix."""

    copies: int = 1
    """How often each example is there, as a row of its own."""

    trainings: int = 0
    """Over how many trainings, each with means of its own, an estimate is made; 0 is over folds of one training."""

    moved: float = 0.4
    """What a training moves a weight's mean by, on a logarithmic scale."""

    def __post_init__(self) -> None:
        generator = np.random.default_rng(7)
        self.quiet = np.exp(self._logs(generator))
        self.often = np.exp(generator.uniform(math.log(0.01), 0, WEIGHTS)) if self.rare else None
        self.others = np.exp(generator.standard_normal(self.quiet.shape))
        if self.loud:
            self.others *= self.quiet.sum(axis=1, keepdims=True) / self.others.sum(axis=1, keepdims=True) / self.loud

    def _logs(self, generator):
        if self.structure in {"apart", "equal"}:
            base = generator.standard_normal(WEIGHTS)
            apart = np.repeat([0.7, 1.3], HALF)
            logs = [base, base + apart * generator.standard_normal(WEIGHTS)]
            further = base + 1.6 * apart * generator.standard_normal(WEIGHTS)
            return np.stack([*logs, logs[1] if self.structure == "equal" else further])
        columns = generator.standard_normal((3, 2, 1, HALF // self.rows))
        columns[1:] = 0.8 * columns[:1] + 0.6 * columns[1:]
        logs = np.repeat(columns, self.rows, axis=2)
        if self.structure == "rows and columns":
            rows = generator.standard_normal((3, 2, self.rows, 1))
            single = generator.standard_normal(logs.shape)
            for each, amount in ((rows, 0.8), (single, 0.7)):
                each[1:] = amount * each[:1] + math.sqrt(1 - amount**2) * each[1:]
            logs = logs + 0.6 * rows + 0.6 * single
        return logs.reshape(3, WEIGHTS)

    def means(self):
        """Means of the three Fishers, ``[3, weights]``."""
        return (1 - self.loud) * self.quiet + self.loud * self.others if self.loud else self.quiet

    def trained(self, generator):
        """The same regime after one more training."""
        one = copy.copy(self)
        one.quiet = self.quiet * np.exp(self.moved * generator.standard_normal(self.quiet.shape))
        return one

    def draw(self, generator, n):
        """Per-example Fishers ``[3, n, weights]``."""
        different = n // self.copies
        same = normal(generator, (different, WEIGHTS))
        drawn = generator.standard_normal((3, different, 1))
        sizes = np.exp(self.spread * (drawn[:1] if self.sizes_shared else drawn) - self.spread**2 / 2)
        is_loud = generator.random((different, 1)) < self.loud if self.loud else None
        squares = []
        for index, size in enumerate(np.broadcast_to(sizes, drawn.shape)):
            mean = self.quiet[index]
            if is_loud is not None:
                mean = np.where(is_loud, self.others[index], mean)
            own = normal(generator, (different, WEIGHTS))
            gradient = self.correlation * same + math.sqrt(1 - self.correlation**2) * own
            values = gradient**2 * size * mean
            if "abc"[index] in self.rare:
                values *= (generator.random((different, WEIGHTS)) < self.often) / self.often
            squares.append(values)
        return np.repeat(np.stack(squares), self.copies, axis=1)

    def truths(self):
        """What is estimated, of the means; over trainings the mean of it."""
        if not self.trainings:
            return truths(self.means(), self.rows)
        generator = np.random.default_rng(8)
        drawn = [truths(self.trained(generator).means(), self.rows) for _ in range(TRAININGS)]
        return {key: float(np.mean([each[key] for each in drawn])) for key in drawn[0]}


def truths(means, rows):
    """Overlap, contrast, layer against layer, and the overlap above the strictest of its nulls."""
    roots = np.sqrt(means)

    def cosine(i, j, where=slice(None)):
        x, y = roots[i, where], roots[j, where]
        return float(x @ y / math.sqrt((x @ x) * (y @ y)))

    nulls = np.zeros(3)
    for where in PARTS.values():
        x, y = (roots[index, where].reshape(rows, -1) for index in (0, 1))
        entries = x.sum() * y.sum() / x.size
        either = [x.sum(0) @ y.sum(0) / len(x), x.sum(1) @ y.sum(1) / x.shape[1]] if rows > 1 else [entries] * 2
        nulls += [entries, *either]
    ab, lengths = cosine(0, 1), np.sqrt(means[:2].sum(axis=1))
    return {
        "overlap": ab,
        "contrast": ab - cosine(0, 2),
        "layers": cosine(0, 1, PARTS["one"]) - cosine(0, 1, PARTS["two"]),
        "above null": ab - float(nulls.max() / lengths.prod()),
    }


REGIMES = {
    "well-behaved": Regime("squared normal gradients, examples of about equal size"),
    "heavy tails": Regime("examples of log-normal size, sigma 1.2", spread=1.2),
    "rare coordinates": Regime("each weight matters to 1 % to 100 % of the examples", rare="abc"),
    "heavy and rare": Regime(
        "both of these, the size of an example being the same for all three Fishers", 1.2, "abc", sizes_shared=True
    ),
    "few effective": Regime("examples of log-normal size, sigma 2", spread=2.0),
    "loud examples": Regime("2 % of the examples carry half of the trace, in other weights", loud=0.02),
    "common noise": Regime(
        "gradients of one example correlate at .95 between Fishers, sizes are shared",
        1.2,
        sizes_shared=True,
        correlation=0.95,
    ),
    "unequal ceilings": Regime(
        "the true contrast is 0: c is b, but each weight of c matters to 1 % to 100 % of the examples",
        rare="c",
        structure="equal",
    ),
    "rows and columns": Regime(
        "matrices of 10 x 15 with units and inputs in common", structure="rows and columns", rows=10
    ),
    "rows, columns, rare": Regime(
        "the same, and each weight matters to 1 % to 100 % of the examples",
        rare="abc",
        structure="rows and columns",
        rows=10,
    ),
    "nothing above null": Regime(
        "matrices of 10 x 15 with inputs in common and nothing else, gradients correlate at .95",
        correlation=0.95,
        structure="columns",
        rows=10,
    ),
    "nothing above, rare": Regime(
        "the same, and each weight matters to 1 % to 100 % of the examples, the same weights in all Fishers",
        rare="abc",
        correlation=0.95,
        structure="columns",
        rows=10,
    ),
    "12 rows, 30 copies": Regime("12 different examples, 30 copies of each, dealt to any fold", copies=30),
    "3 trainings": Regime("over 3 trainings, each of which moves every mean", trainings=3),
    "5 trainings": Regime("over 5 trainings, each of which moves every mean", trainings=5),
}
FIRST = ("well-behaved", "heavy tails", "rare coordinates", "heavy and rare", "few effective", "loud examples")
SECOND = (
    "common noise",
    "unequal ceilings",
    "rows and columns",
    "rows, columns, rare",
    "nothing above null",
    "nothing above, rare",
)
HARDEST = ("unequal ceilings", "nothing above null", "nothing above, rare")
SETTINGS = [
    *(
        (name, n, K)
        for n, K in ((200, 8), (400, 8), (96, 8), (800, 8), (400, 4), (400, 5), (400, 16))
        for name in FIRST
    ),
    *((name, 200, 8) for name in SECOND),
    ("12 rows, 30 copies", 360, 8),
    ("3 trainings", 96, 8),
    ("5 trainings", 96, 8),
    *((name, n, 8) for n in (96, 800) for name in HARDEST),
]
"""Regime, examples, folds."""
