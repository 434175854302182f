"""How much too high is a noise ceiling that ``fisher --until-noise-ceiling`` takes where it passes the mark?

    python reproductions/stopping.py

Softmax regression with 10 inputs and 3 classes, labels drawn from the model, 8 folds by row number, steps 64, 128, …,
4096. Each repetition stops where the noise ceiling passes the mark with an effective sample size of at least 20, *once*
or in *two* steps in a row (the rule of the command), then takes the noise ceiling of as many fresh rows, which nothing
selected. Printed: the mean difference and its standard error, how many stopped before the rows ended, and how many of
those had a noise ceiling more than .05 above the fresh one. Regimes: the sizes of inputs are equal, or spread
(log-normal); or loud examples, 2 % or 0.5 % of all, carry about half of the trace, in other weights.
"""

import argparse
import math

import numpy as np
import torch

from commonweight import Footprint
from commonweight.footprints.folds import FOLD_MAP, fold_of
from commonweight.footprints.footprint import Fold
from commonweight.overlaps import noise_ceiling
from commonweight.studies.compare.until_noise_ceiling import Convergence, Point, step_ends

ROWS, FOLDS, INPUTS, CLASSES = 4096, 8, 10, 3
FOLD = np.array([fold_of(row, FOLDS) for row in range(ROWS)])
MARKS = (0.9, 0.95)
FAR = 0.05


def spread(generator, sigma):
    """Inputs of which each row has a size of its own."""
    return generator.standard_normal((ROWS, INPUTS)) * np.exp(sigma * generator.standard_normal((ROWS, 1)))


def loud(generator, share):
    """Most rows are in the first half of the inputs; a few, larger ones are in the second."""
    inputs = generator.standard_normal((ROWS, INPUTS))
    is_loud = generator.random(ROWS) < share
    inputs[~is_loud, INPUTS // 2 :] = 0
    inputs[is_loud, : INPUTS // 2] = 0
    inputs[is_loud] *= math.sqrt((1 - share) / share)
    return inputs


REGIMES = {
    "equal sizes": lambda generator: spread(generator, 0.0),
    "sizes spread, 0.7": lambda generator: spread(generator, 0.7),
    "sizes spread, 1": lambda generator: spread(generator, 1.0),
    "2 % loud": lambda generator: loud(generator, 0.02),
    "0.5 % loud": lambda generator: loud(generator, 0.005),
}


def squares(generator, inputs, model):
    """Squared gradients of every row, ``[rows, weights]``."""
    odds = np.exp(inputs @ model)
    odds /= odds.sum(axis=1, keepdims=True)
    labels = np.minimum((odds.cumsum(axis=1) < generator.random((ROWS, 1))).sum(axis=1), CLASSES - 1)
    return np.square(inputs[:, :, None] * (odds - np.eye(CLASSES)[labels])[:, None, :]).reshape(ROWS, -1)


def noise_ceiling_of(found, count):
    def mean(chosen):
        return {"weight": torch.from_numpy(found[:count][chosen].mean(axis=0))}

    folds = tuple(Fold(int((FOLD[:count] == k).sum()), mean(FOLD[:count] == k)) for k in range(FOLDS))
    every = mean(np.ones(count, dtype=bool))
    metadata = {"folds": {"count": FOLDS, "map": FOLD_MAP}}
    return noise_ceiling(Footprint("fisher", every, count, metadata=metadata, folds=folds)).pooled


def curve_of(found):
    """One point per step, up to the last row."""
    sizes = found.sum(axis=1)
    return tuple(
        Point(count, sizes[:count].sum() ** 2 / np.square(sizes[:count]).sum(), noise_ceiling_of(found, count))
        for count in step_ends(range(ROWS), FOLDS)
    )


def stop(curve, mark, steps):
    """The point at which a rule stops; None where the rows end first."""
    for number, point in enumerate(curve, 1):
        enough = Convergence(mark, curve[:number], ROWS, ROWS).is_reached if steps == 2 else not point.fault(mark)
        if enough:
            return point
    return None


def simulate(name, drawn, repetitions):
    """Print what one regime gives."""
    generator = np.random.default_rng(0)
    model = (0.1 if "loud" in name else 0.5) * generator.standard_normal((INPUTS, CLASSES))
    differences = {(mark, steps): [] for mark in MARKS for steps in (1, 2)}
    rows = {key: [] for key in differences}
    for _ in range(repetitions):
        found, fresh = (squares(generator, drawn(generator), model) for _ in range(2))
        curve = curve_of(found)
        for key, kept in differences.items():
            if point := stop(curve, *key):
                kept.append(point.noise_ceiling.value - noise_ceiling_of(fresh, point.examples).value)
                rows[key].append(point.examples)
    for (mark, steps), kept in differences.items():
        error = np.std(kept, ddof=1) / np.sqrt(len(kept))
        print(
            f"{name}, mark {mark}, {('once', 'two in a row')[steps - 1]}: {np.mean(kept):+.4f} ± {error:.4f}, "
            f"{len(kept)} of {repetitions} stopped, at {np.mean(rows[mark, steps]):.0f} rows; "
            f"{np.mean(np.array(kept) > FAR):.0%} of them more than {FAR} too high"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    for name, drawn in REGIMES.items():
        simulate(name, drawn, options.repetitions)


if __name__ == "__main__":
    main()
