"""Estimates: the jackknife of a mean is the textbook's, seeds too; what is combined, and what has no interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from commonweight import Estimate
from commonweight.base.errors import UsageError

VALUES = st.lists(st.floats(-10, 10), min_size=3, max_size=12)


def jackknife_of_mean(values):
    whole = sum(values)
    without = tuple((whole - value) / (len(values) - 1) for value in values)
    return Estimate(whole / len(values), without, "folds")


@given(VALUES)
def test_of_a_mean_folds_and_seeds_are_the_t_interval(values):
    if max(values) - min(values) < 1e-6:
        return
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    for found in (jackknife_of_mean(values), Estimate.over_seeds(values)):
        assert found.degrees == len(values) - 1
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@given(VALUES, st.floats(-3, 3))
def test_linear_combinations_go_by_replicates(values, factor):
    one, other = jackknife_of_mean(values), jackknife_of_mean([value**2 for value in values])
    both = 2 * one - other * factor + 0.5
    expected = jackknife_of_mean([2 * value - factor * value**2 + 0.5 for value in values])
    assert both.value == pytest.approx(expected.value, abs=1e-6)
    assert both.replicates == pytest.approx(expected.replicates, abs=1e-6)
    assert (one - one).half_width() == 0
    assert (-one).low == pytest.approx(-one.high)


def test_pairing_narrows_what_is_common_and_not_what_is_apart():
    one = Estimate.over_seeds([0.5, 0.7, 0.9, 0.6])
    alike, apart = Estimate.over_seeds([0.4, 0.6, 0.8, 0.51]), Estimate.over_seeds([0.6, 0.8, 0.4, 0.51])
    assert (one - alike).standard_error < 0.1 * one.standard_error
    assert (one - apart).standard_error > one.standard_error


def test_too_few_or_undefined_has_no_interval_and_says_why():
    for replicates, over, why in (
        ((), "folds", "at least 3 folds, and there are 0"),
        ((0.5, 0.6), "folds", "at least 3 folds, and there are 2"),
        ((0.5,), "seeds", "at least 2 seeds, and there are 1"),
    ):
        found = Estimate(0.55, replicates, over)
        assert why in found.missing
        assert math.isnan(found.low)
        assert math.isnan(found.half_width(0.5))
    assert Estimate.over_seeds([0.5, math.nan, 0.7]).missing == "the value is undefined"
    assert Estimate.over_seeds([]).missing == "the value is undefined"
    assert Estimate(0.5, (0.5, math.nan, 0.6), "folds").missing == "undefined without one of the folds"
    assert Estimate(0.5, (0.5, 0.4, 0.6), "folds").missing is None
    assert (
        str(Estimate(0.55, (0.5,), "folds"))
        == "0.5500 (no interval: an interval needs at least 3 folds, and there are 1)"
    )


def test_the_level():
    found = Estimate.over_seeds([0.5, 0.7, 0.9, 0.6])
    assert (
        found.half_width(0.5)
        < found.half_width(0.9)
        < found.half_width(0.95)
        == pytest.approx(found.high - found.value)
    )
    with pytest.raises(UsageError, match="between 0 and 1"):
        found.half_width(95)


def test_what_does_not_belong_together_is_refused():
    seeds, folds = Estimate.over_seeds([1.0, 2.0, 3.0]), Estimate(2.0, (1.0, 2.0, 3.0), "folds")
    with pytest.raises(UsageError, match="over 3 seeds and over 3 folds have no replicates in common"):
        seeds - folds
    with pytest.raises(UsageError, match="over 3 seeds and over 4 seeds"):
        seeds + Estimate.over_seeds([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(UsageError, match="'folds' or 'seeds', got 'rows'"):
        Estimate(1.0, (), "rows")
