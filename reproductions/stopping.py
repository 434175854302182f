"""How much too high is a ceiling that is taken where it first passes the mark, as ``fisher --until-ceiling`` takes it?

    python reproductions/stopping.py

Softmax regression with 10 inputs and 3 classes, labels drawn from the model, 8 folds by row number, steps 64, 128, …,
4096. Each repetition stops where the ceiling passes the mark with at least 20 effective examples, then takes the
ceiling of as many fresh rows, which nothing selected. Printed: the mean difference and its standard error, in a
uniform regime and in one where the sizes of inputs spread (log-normal), so that few examples carry much.
"""

import numpy as np
import torch

from commonweight import Footprint
from commonweight.footprint.folds import FOLD_MAP, fold_of
from commonweight.footprint.footprint import Fold
from commonweight.overlaps import ceiling
from commonweight.overlaps.layout import FEW_EXAMPLES
from commonweight.studies.until_ceiling import step_ends

ROWS, FOLDS, INPUTS, CLASSES, REPETITIONS = 4096, 8, 10, 3, 300
FOLD = np.array([fold_of(row, FOLDS) for row in range(ROWS)])


def squares(generator, model, spread):
    """Squared gradients of every row, ``[rows, weights]``."""
    inputs = generator.standard_normal((ROWS, INPUTS)) * np.exp(spread * generator.standard_normal((ROWS, 1)))
    odds = np.exp(inputs @ model)
    odds /= odds.sum(axis=1, keepdims=True)
    labels = np.minimum((odds.cumsum(axis=1) < generator.random((ROWS, 1))).sum(axis=1), CLASSES - 1)
    return np.square(inputs[:, :, None] * (odds - np.eye(CLASSES)[labels])[:, None, :]).reshape(ROWS, -1)


def ceiling_of(found, count):
    def mean(chosen):
        return {"weight": torch.from_numpy(found[:count][chosen].mean(axis=0))}

    folds = tuple(Fold(int((FOLD[:count] == k).sum()), mean(FOLD[:count] == k)) for k in range(FOLDS))
    every = mean(np.ones(count, dtype=bool))
    metadata = {"folds": {"count": FOLDS, "map": FOLD_MAP}}
    return ceiling(Footprint("fisher", every, count, metadata=metadata, folds=folds)).pooled.value


def difference(generator, model, spread, mark):
    """The stopped ceiling less that of fresh rows; None where the data end first."""
    found = squares(generator, model, spread)
    sizes = found.sum(axis=1)
    for count in step_ends(range(ROWS), FOLDS):
        effective = sizes[:count].sum() ** 2 / np.square(sizes[:count]).sum()
        if effective >= FEW_EXAMPLES and (stopped := ceiling_of(found, count)) >= mark:
            return stopped - ceiling_of(squares(generator, model, spread), count)
    return None


for spread in (0.0, 0.7, 1.0):
    for mark in (0.9, 0.95):
        generator = np.random.default_rng(0)
        model = 0.5 * generator.standard_normal((INPUTS, CLASSES))
        drawn = [difference(generator, model, spread, mark) for _ in range(REPETITIONS)]
        kept = np.array([each for each in drawn if each is not None])
        error = kept.std(ddof=1) / np.sqrt(len(kept))
        print(f"spread {spread}, mark {mark}: {kept.mean():+.4f} ± {error:.4f} ({len(kept)} of {REPETITIONS} stopped)")
