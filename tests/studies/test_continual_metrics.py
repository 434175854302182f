"""Measures of continual learning: equal to the loops, and different from their namesakes elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import continual as reference
from sklearn.metrics import auc

from commonweight.base import UsageError
from commonweight.studies.continual import metrics

NAN = math.nan


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    size = draw(st.integers(2, 6))
    values = draw(st.lists(st.floats(0, 1), min_size=size * size, max_size=size * size))
    R = np.array(values).reshape(size, size)
    R[np.triu_indices(size, 1)] = NAN
    return R


@given(matrices())
def test_equal_to_the_loops(R: np.ndarray) -> None:
    rows = R.tolist()
    for name in ("average_accuracy", "backward_transfer", "forgetting"):
        assert getattr(metrics, name)(R) == pytest.approx(getattr(reference, name)(rows), abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=2, max_size=12))
def test_the_area_is_that_of_the_loop_and_of_scikit_learn(points: list[tuple[int, float]]) -> None:
    steps = np.cumsum([step for step, _ in points]).tolist()
    values = [value for _, value in points]
    found = metrics.curve_area(steps, values)
    assert found == pytest.approx(reference.curve_area(steps, values), abs=1e-12)
    assert found == pytest.approx(auc(steps, values) / (steps[-1] - steps[0]), abs=1e-12)


def test_nothing_forgotten_is_zero_and_something_is_not() -> None:
    kept = np.array([[0.9, NAN, NAN], [0.9, 0.8, NAN], [0.9, 0.8, 0.7]])
    assert metrics.backward_transfer(kept) == metrics.forgetting(kept) == 0
    lost = kept.copy()
    lost[2, 0] = 0.5
    assert metrics.backward_transfer(lost) == pytest.approx(-0.2)
    assert metrics.forgetting(lost) == pytest.approx(0.2)


def test_forgetting_is_from_the_best_and_not_from_the_first_value() -> None:
    R = np.array([[0.5, NAN, NAN], [0.9, 0.8, NAN], [0.6, 0.8, 0.7]])
    assert metrics.forgetting(R) == pytest.approx(0.15)
    assert metrics.backward_transfer(R) == pytest.approx(0.05)


def test_the_last_row_is_not_its_own_best() -> None:
    R = np.array([[0.5, NAN], [0.9, 0.8]])
    assert metrics.forgetting(R) == pytest.approx(-0.4)


def test_undefined_is_nan() -> None:
    assert metrics.average_accuracy(np.array([[0.5]])) == 0.5
    assert math.isnan(metrics.backward_transfer(np.array([[0.5]])))
    assert math.isnan(metrics.forgetting(np.array([[0.5]])))
    assert math.isnan(metrics.average_accuracy(np.array([[0.5, NAN], [0.5, NAN]])))
    assert math.isnan(metrics.curve_area([3], [0.5]))
    assert math.isnan(metrics.area_gain(1.0, 1.0))


def test_gain() -> None:
    assert metrics.area_gain(1.0, 0.5) == 1
    assert metrics.area_gain(0.5, 0.5) == 0
    assert metrics.area_gain(0.25, 0.5) == -0.5


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="square"):
        metrics.average_accuracy(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="divide percentages by 100"):
        metrics.forgetting(np.array([[90.0, NAN], [80.0, 90.0]]))
    with pytest.raises(UsageError, match="must rise"):
        metrics.curve_area([0, 5, 5], [0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="2 steps and 1 accuracies"):
        metrics.curve_area([0, 5], [0.1])
