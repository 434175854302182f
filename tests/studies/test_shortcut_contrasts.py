"""The cells and contrasts of a study of shortcuts, against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from overlaps.folded import fisher as folded
from scipy import stats
from torch import Generator, rand, randn, tensor

from commonweight import Footprint, overlap
from commonweight.base import UsageError
from commonweight.base.estimate import Estimate
from commonweight.footprints.footprint import Spread
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.compatible import LeftOut
from commonweight.studies.shortcuts.plan import Plan
from commonweight.studies.shortcuts.results import cell_sets, footprint_names, pair_estimates, pair_verdicts

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
    names = {cell: footprint_names(("st", "op"), sets) for cell, sets in cell_sets("st", "op").items()}
    assert names["unshared"] == ("st/st", "op/op")
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
        ({"shortcuts": ("st", "opp")}, "shortcuts must be one of st, .*, got 'opp'"),
        ({"shortcuts": ("st",)}, "at least two different shortcuts"),
        ({"shortcuts": ("st", "st")}, "at least two different shortcuts"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"path_points": 1}, "path_points must be at least 2"),
        (
            {"existing": (("tic", "x"),), "shortcuts": ("st", "op")},
            "existing names 'tic', which is not among the shortcuts of the study, st, op",
        ),
        ({"existing": (("st", "x"),), "seeds": 2}, "one seed"),
    ],
)
def test_plans_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**{"model": "m", "data": "d"} | change)


def test_every_average_is_made() -> None:
    assert Plan("m", "d", shortcuts=("st", "op", "tic")).averages == (
        ("st", "op"),
        ("st", "tic"),
        ("op", "tic"),
        ("st", "op", "tic"),
    )


# Verdicts

CONTRASTS = ("shared − unshared", "shared − same input, first", "shared − same input, second")
MODELS = ("start", "random-labels", *SHORTCUTS)
CELLS = tuple(f"{model}/{data}" for model in MODELS for data in ("original", *SHORTCUTS))
SHAPES = {"a.weight": (6, 5), "b.weight": (4, 6)}


def leaning(name: str, seed: int, plain: str = "original"):
    """Fishers that are alike on originals (or other plain rows), and elsewhere lean to weights of the model's own."""
    model, _, data = name.partition("/")
    code = MODELS.index(model) + 4 * seed

    def examples(generator, count, shape):
        own = randn(shape, generator=Generator().manual_seed(code)).exp()
        size = 0.05 if data == plain else 1.5
        return (rand((count, *shape), generator=generator) + 0.5) * own**size

    return examples


def grid_table(seed: int, folds: int = 8, names: tuple[str, ...] = CELLS, plain: str = "original"):
    footprints = {name: folded(leaning(name, seed, plain), SHAPES, folds, 17 + seed, [6] * folds) for name in names}
    if folds == 1:
        footprints = {n: replace(footprint, folds=()) for n, footprint in footprints.items()}
    found = overlap(footprints)
    apart = Alignment(found.names, np.full((len(names), len(names)), 0.1))
    spread = dict.fromkeys(names, dict.fromkeys("ab", Spread(50.0, 50.0)))
    return replace(found, alignment=apart, effective_sample_size=dict.fromkeys(names, 40.0), spread=spread)


SAME_ROWS = dict.fromkeys(("original", *SHORTCUTS), "rows 1 to 48")


def verdicts_of(tables, layer=None, rows=None):
    return pair_verdicts(tables, rows or [SAME_ROWS] * len(tables), SHORTCUTS, layer)


def test_over_seeds_where_there_are_several() -> None:
    tables = [grid_table(seed) for seed in range(3)]
    found = verdicts_of(tables)[SHORTCUTS]
    assert tuple(found) == CONTRASTS
    verdict = found["shared − unshared"]
    assert verdict.answer == "shares more"
    assert verdict.estimate.over == "seeds"
    by_hand = [
        table.contrast(("st/original", "op/original"), ("st/st", "op/op")).value for table in tables
    ]  # corrected
    assert verdict.estimate.replicates == pytest.approx(by_hand)
    per_layer = verdicts_of(tables, "a")[SHORTCUTS]["shared − unshared"].estimate.replicates
    assert per_layer != verdict.estimate.replicates


def test_over_folds_with_one_seed() -> None:
    table = grid_table(0)
    found = verdicts_of([table])[SHORTCUTS]["shared − same input, first"]
    assert found.answer == "shares more"
    assert found.estimate.over == "folds"
    by_hand = table.contrast(("st/original", "op/original"), ("st/st", "op/st"))
    assert found.estimate.replicates == pytest.approx(by_hand.replicates)


def test_without_folds_overlaps_are_raw_and_cannot_say() -> None:
    tables = [grid_table(seed, folds=1) for seed in range(3)]
    one = verdicts_of(tables[:1])[SHORTCUTS]["shared − unshared"]
    assert one.answer == "inconclusive"
    assert ("interval", "missing") in [(each.code, each.fault) for each in one.lacking]
    several = verdicts_of(tables)[SHORTCUTS]["shared − unshared"]
    cells = pair_estimates(tables, SHORTCUTS)[SHORTCUTS]
    assert several.estimate == cells["shared"] - cells["unshared"]
    assert several.estimate.low > 0
    assert (several.answer, [need.code for need in several.lacking]) == ("inconclusive", ["noise taken out"])
    mixed = verdicts_of([tables[0], grid_table(1)])[SHORTCUTS]["shared − unshared"]
    raw = pair_estimates([tables[0], grid_table(1)], SHORTCUTS)[SHORTCUTS]
    assert mixed.estimate.value == pytest.approx(raw["shared"].value - raw["unshared"].value)
    assert "noise taken out" in [need.code for need in mixed.lacking]


def test_controls_are_the_same_contrast_with_one_model_replaced() -> None:
    table = grid_table(0)
    found = verdicts_of([table])[SHORTCUTS]["shared − same input, first"]
    assert tuple(found.controls) == ("with start", "with random-labels")
    for model in ("start", "random-labels"):
        first = table.contrast((f"{model}/original", "op/original"), (f"{model}/st", "op/st"))
        second = table.contrast(("st/original", f"{model}/original"), ("st/st", f"{model}/st"))
        assert found.controls[f"with {model}"].value == pytest.approx((first.value + second.value) / 2)
    bare = grid_table(0, names=tuple(name for name in CELLS if name.partition("/")[0] in SHORTCUTS))
    assert verdicts_of([bare])[SHORTCUTS]["shared − unshared"].controls == {}


@pytest.mark.parametrize(("seed", "named"), [(0, ["start", "random-labels"]), (1, ["random-labels"]), (2, [])])
def test_a_control_that_is_as_large_is_said_and_decides_nothing(seed: int, named: list[str]) -> None:
    name = "shared − same input, first"
    for plain, answer, sign in (("original", "shares more", 1), ("st", "shares less", -1)):
        found = verdicts_of([grid_table(seed, plain=plain)])[SHORTCUTS][name]
        assert found.answer == answer
        for model in ("start", "random-labels"):
            control = found.controls[f"with {model}"]
            assert (sign * (found.estimate - control).value <= 0) == (model in named)


def test_what_a_contrast_of_the_study_takes() -> None:
    table = grid_table(0)
    answers = {
        "effective sample size": replace(
            table, effective_sample_size=dict(table.effective_sample_size) | {"op/op": 12.0}
        ),
        "shared initialisation": replace(
            table, alignment=Alignment(table.names, np.full((len(CELLS), len(CELLS)), 0.9))
        ),
    }
    for code, changed in answers.items():
        found = verdicts_of([changed])[SHORTCUTS]
        assert found["shared − unshared"].answer == "inconclusive"
        assert [each.code for each in found["shared − unshared"].lacking] == [code]
    elsewhere = replace(table, effective_sample_size=dict(table.effective_sample_size) | {"start/op": 12.0})
    assert verdicts_of([elsewhere])[SHORTCUTS]["shared − unshared"].answer == "shares more"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_seed_must_have_what_a_contrast_takes(place: int) -> None:
    tables = [grid_table(seed) for seed in range(3)]
    one = tables[place]
    distance = np.array(one.alignment.distance)
    i, j = one.names.index("st/st"), one.names.index("op/op")
    distance[i, j] = distance[j, i] = 0.9
    few = dict(one.spread) | {"op/op": {"a": Spread(12.0, 12.0), "b": Spread(50.0, 50.0)}}
    again = overlap({
        name: folded(leaning("st/st" if name == "op/op" else name, place), SHAPES, 8, 17 + place, [6] * 8)
        for name in one.names
    })
    changes = {
        "shared initialisation": {"alignment": Alignment(one.names, distance)},
        "effective sample size": {"effective_sample_size": dict(one.effective_sample_size) | {"op/op": 12.0}},
        "two footprints": {"terms": again.terms, "resampled": again.resampled},
    }
    assert verdicts_of(tables)[SHORTCUTS]["shared − unshared"].answer == "shares more"
    for need, change in changes.items():
        tables[place] = replace(one, **change)
        found = verdicts_of(tables)[SHORTCUTS]["shared − unshared"]
        assert found.answer == "inconclusive"
        assert need in [each.code for each in found.lacking]
        assert found.lacking[0].code == need
        other = verdicts_of(tables)[SHORTCUTS]["shared − same input, first"]
        assert other.answer == "shares more"  # op/op is not behind it
    tables[place] = one
    rows = [SAME_ROWS] * 3
    rows[place] = SAME_ROWS | {"op": "as many other rows"}
    elsewhere = verdicts_of(tables, rows=rows)[SHORTCUTS]
    assert [need.code for need in elsewhere["shared − unshared"].lacking] == ["same rows"]
    assert elsewhere["shared − unshared"].answer == "inconclusive"
    assert elsewhere["shared − same input, first"].answer == "shares more"
    tables[place] = replace(one, spread=few)
    layers = {layer: verdicts_of(tables, layer)[SHORTCUTS]["shared − unshared"] for layer in (None, *"ab")}
    few_in = [
        layer for layer, found in layers.items() if "effective sample size" in [need.code for need in found.lacking]
    ]
    assert few_in == ["a"]


def test_parameters_left_out_are_said() -> None:
    table = grid_table(0)
    some = replace(table, left_out=(LeftOut("head.weight", "only in 'st/original'"),))
    found = verdicts_of([replace(table, left_out=()), some])[SHORTCUTS]["shared − unshared"]
    assert ("every parameter", {"count": 1}) in [(each.code, each.found) for each in found.beware]
