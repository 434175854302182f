"""A simulation with a known truth: raw overlaps are too low on few examples, corrected ones nearer to the truth."""

import math

import numpy as np
import pytest
import torch

from commonweight import overlap
from commonweight.footprints.folds import fold_of
from commonweight.footprints.footprint import Fold, Footprint

WEIGHTS = 200
MEANS = np.exp(np.random.default_rng(5).standard_normal((2, WEIGHTS)) * [[1.0], [1.1]])
OFTEN = np.exp(np.random.default_rng(6).uniform(math.log(0.02), 0, WEIGHTS))
TRUTH = float(np.sqrt(MEANS[0] * MEANS[1]).sum() / math.sqrt(MEANS[0].sum() * MEANS[1].sum()))


def pair(n, seed, rare=True, spread=0.0):
    """Two Fishers of the same n rows, with 8 folds."""
    generator = np.random.default_rng([n, seed])
    folds = np.array([fold_of(row, 8) for row in range(n)])
    found = {}
    for name, mean in zip("ab", MEANS, strict=True):
        size = np.exp(spread * generator.standard_normal((n, 1)) - spread**2 / 2)
        each = generator.standard_normal((n, WEIGHTS)) ** 2 * size * mean
        if rare:
            each *= (generator.random((n, WEIGHTS)) < OFTEN) / OFTEN
        parts = tuple(
            Fold(int((folds == k).sum()), {"w": torch.from_numpy(each[folds == k].mean(axis=0))}) for k in range(8)
        )
        found[name] = Footprint("fisher", {"w": torch.from_numpy(each.mean(axis=0))}, n, folds=parts)
    return overlap(found)


def means(n, repetitions=12, **options):
    tables = [pair(n, seed, **options) for seed in range(repetitions)]
    return {of: float(np.mean([table.estimate(of, "a", "b").value for table in tables])) for of in ("raw", "corrected")}


def test_rare_coordinates():
    few, more = means(96), means(800)
    assert few["raw"] < more["raw"] < TRUTH - 0.01  # raw climbs with the examples
    assert few["raw"] < TRUTH - 0.06
    assert abs(few["corrected"] - TRUTH) < 0.25 * abs(few["raw"] - TRUTH)
    assert more["corrected"] == pytest.approx(TRUTH, abs=0.015)


def test_where_there_is_little_noise_nothing_is_corrected_away():
    found = means(1600, repetitions=4, rare=False)
    assert found["raw"] == pytest.approx(TRUTH, abs=0.01)
    assert found["corrected"] == pytest.approx(found["raw"], abs=0.005)


def test_heavy_tails():
    found = means(200, rare=False, spread=1.2)
    assert found["raw"] < TRUTH - 0.005
    assert abs(found["corrected"] - TRUTH) < abs(found["raw"] - TRUTH)


def test_intervals_cover_the_truth_as_often_as_they_say():
    found = [pair(100, seed, rare=False).estimate("corrected", "a", "b") for seed in range(200)]
    # Of 200 intervals that cover at 95 %, fewer than 179 or more than 198 are one in 1000.
    assert 179 <= covering(found, 1.0) <= 198
    assert covering(found, 0.7) < 179  # too narrow by that much would be seen
    assert covering(found, 1.7) > 198  # and too wide


def covering(estimates, stretched):
    """How many intervals, stretched, hold the truth."""
    return sum(abs(each.value - TRUTH) <= stretched * each.half_width() for each in estimates)


def test_the_noise_of_raw_overlaps_is_also_bias():
    raw = [pair(96, seed).estimate("raw", "a", "b") for seed in range(20)]
    assert sum(each.low <= TRUTH <= each.high for each in raw) <= 10
