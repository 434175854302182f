"""The cells and contrasts of a study of shortcuts, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from scipy import stats
from torch import tensor

from commonweight import Footprint, UsageError, overlap
from commonweight.overlaps.estimate import Estimate
from commonweight.studies.shortcuts.contrasts import cell_names, pair_estimates
from commonweight.studies.shortcuts.plan import Plan

SHORTCUTS = ("st", "op")


def table(**fishers: list[float]):
    footprints = {
        name.replace("_on_", "/"): Footprint(
            "fisher", {"a.weight": tensor(values[:2]), "b.weight": tensor(values[2:])}, 8
        )
        for name, values in fishers.items()
    }
    return overlap(footprints)


GRID = {
    "st_on_original": [1.0, 0.0, 1.0, 0.0],
    "op_on_original": [1.0, 0.0, 1.0, 0.0],
    "st_on_st": [0.0, 1.0, 0.0, 1.0],
    "op_on_op": [1.0, 0.0, 0.0, 1.0],
    "op_on_st": [0.0, 1.0, 1.0, 0.0],
    "st_on_op": [1.0, 0.0, 0.0, 1.0],
}


def test_every_cell_compares_what_it_says() -> None:
    found = pair_estimates([table(**GRID)], SHORTCUTS)[("st", "op")]
    assert {cell: value.replicates[0] for cell, value in found.items()} == pytest.approx({
        "shared": 1.0,
        "unshared": 0.5,
        "same input, first": 0.5,
        "same input, second": 1.0,
    })
    by_layer = pair_estimates([table(**GRID)], SHORTCUTS, "a")[("st", "op")]
    assert by_layer["unshared"].replicates == (0.0,)
    assert by_layer["same input, first"].replicates == (1.0,)


def test_the_first_input_is_that_of_the_first_model() -> None:
    names = cell_names("st", "op")
    assert names["same input, first"] == ("st/st", "op/st")
    assert names["same input, second"] == ("st/op", "op/op")


def test_the_interval_is_students() -> None:
    values = (0.81, 0.86, 0.79, 0.9)
    low, high = stats.t.interval(0.95, 3, loc=Estimate.over_seeds(values).value, scale=stats.sem(values))
    assert Estimate.over_seeds(values).value - Estimate.over_seeds(values).half_width() == pytest.approx(low)
    assert Estimate.over_seeds(values).value + Estimate.over_seeds(values).half_width() == pytest.approx(high)


def test_a_difference_is_taken_seed_by_seed() -> None:
    contrast = Estimate.over_seeds((0.9, 0.7)) - Estimate.over_seeds((0.8, 0.6))
    assert contrast.value == pytest.approx(0.1)
    assert contrast.half_width() == pytest.approx(0.0, abs=1e-12)  # the seeds move both alike


@pytest.mark.parametrize("values", [(0.5,), (), (0.5, math.nan)])
def test_no_interval_where_there_is_none(values: tuple[float, ...]) -> None:
    assert math.isnan(Estimate.over_seeds(values).half_width())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortcuts": ("st", "opp")}, "no shortcut 'opp'"),
        ({"shortcuts": ("st",)}, "at least two different shortcuts"),
        ({"shortcuts": ("st", "st")}, "at least two different shortcuts"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"path_points": 1}, "the two ends"),
        ({"existing": (("tic", "x"),), "shortcuts": ("st", "op")}, "existing model for 'tic'"),
        ({"existing": (("st", "x"),), "seeds": 2}, "one seed"),
    ],
)
def test_plans_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**{"model": "m", "data": "d"} | change)


def test_every_average_is_made() -> None:
    assert Plan("m", "d", ("st", "op", "tic")).averages == (
        ("st", "op"),
        ("st", "tic"),
        ("op", "tic"),
        ("st", "op", "tic"),
    )
