"""Paths: the ends are exact, the steps equal, the triangle covered once."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fusion import triangle

from commonweight.base import UsageError
from commonweight.fusion import interpolation_path, simplex_path

numbers = st.floats(-2, 2, allow_nan=False)


def test_the_usual_curve_has_eleven_points():
    path = interpolation_path()
    assert len(path) == 11
    assert path[0] == (1.0, 0.0)
    assert path[-1] == (0.0, 1.0)
    assert [round(b, 12) for _, b in path] == [round(0.1 * k, 12) for k in range(11)]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), st.integers(2, 30))
@settings(max_examples=50, deadline=None)
def test_ends_are_exact_and_steps_equal(pairs, points):
    a, b = (tuple(side) for side in zip(*pairs, strict=True))
    path = interpolation_path(a, b, points)
    assert (path[0], path[-1], len(path)) == (a, b, points)
    for k, point in enumerate(path):
        alpha = k / (points - 1)
        assert point == pytest.approx([(1 - alpha) * x + alpha * y for x, y in pairs], abs=1e-12)


@given(st.integers(1, 25))
@settings(max_examples=25, deadline=None)
def test_the_triangle_is_covered_once(steps):
    path = simplex_path(steps=steps)
    assert len(path) == len(set(path)) == (steps + 1) * (steps + 2) // 2
    assert set(path) == triangle(steps)
    assert all(math.fsum(point) == pytest.approx(1, abs=1e-15) for point in path)


def test_corners_may_be_any_fusion():
    path = simplex_path((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0.5, 0.5), steps=2)
    assert path[0] == (1, 0, 0, 0)
    assert path[-1] == (0, 0, 0.5, 0.5)
    assert (0, 0.5, 0.25, 0.25) in path


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interpolation_path(points=1), "points must be a whole number of at least 2, got 1"),
        (lambda: interpolation_path(points=2.5), r"points must be a whole number of at least 2, got 2\.5"),
        (lambda: interpolation_path(points=True), "got True"),
        (lambda: simplex_path(steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda: interpolation_path((1, 0), (0, 1, 0)), "got 2 in a, 3 in b; give all ends for the same models"),
        (lambda: interpolation_path((), ()), "got 0 in a, 0 in b"),
        (lambda: interpolation_path((1, math.nan)), "a must be weights, one finite number per model, got nan"),
        (lambda: simplex_path(c=(0, 0, "1")), "c must be weights, one finite number per model, got '1'"),
    ],
)
def test_paths_that_lead_nowhere(call, message):
    with pytest.raises(UsageError, match=message):
        call()
