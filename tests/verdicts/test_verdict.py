"""Verdicts: what each answer takes, and that nothing else gives it."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from commonweight import overlap
from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.verdicts.needs import NEEDS, needs_grid
from commonweight.verdicts.verdict import (
    OVER,
    SMALLEST_EFFECTIVE,
    STORED,
    Need,
    Verdict,
    by_chance,
    contrast_verdict,
    null_verdict,
    permutation_verdict,
)

UP = Estimate.over_seeds([0.10, 0.11, 0.12])
OVER_FOLDS = Estimate(0.1, (0.09, 0.10, 0.11, 0.10), "folds")
AROUND_0 = Estimate.over_seeds([-0.1, 0.0, 0.12])
ENOUGH = [20.0, 300.5]
MET = {"same_rows": True, "aligned": True, "noise_taken_out": True, "effective_sample_size": ENOUGH}
OF_LAYERS = ["two networks", "beyond the null too"]
ASKED_ELSEWHERE = ["shortcut learned", "two footprints", "same Fisher type", "distinct rows", "at most 1", *OF_LAYERS]


def contrast(difference=UP, **changed) -> Verdict:
    return contrast_verdict(difference, **(MET | changed))


def null(estimate, **changed) -> Verdict:
    return null_verdict(estimate, **({"aligned": True, "effective_sample_size": ENOUGH} | changed))


@pytest.mark.parametrize(("difference", "answer"), [
    (UP, "shares more"), (-UP, "shares less"), (AROUND_0, "inconclusive"), (-AROUND_0, "inconclusive"),
    (OVER_FOLDS, "shares more"), (-OVER_FOLDS, "shares less"),
])  # fmt: skip
def test_a_contrast_with_all_it_takes(difference, answer):
    found = contrast(difference)
    assert found.answer == answer
    assert ASKED_ELSEWHERE + [need.name for need in found.needs] == [requirement.name for requirement in NEEDS]
    assert (found.lacking == ()) == (answer != "inconclusive")
    assert str(difference) in found.reason
    assert found.reason.endswith(OVER[difference.over])
    assert found.brief == found.reason.removesuffix(", " + OVER[difference.over])
    assert str(found) == f"{answer}: {found.reason}"


@pytest.mark.parametrize(("changed", "name", "words"), [
    ({"same_rows": False}, "same rows", "the two sides are of different rows"),
    ({"aligned": False}, "shared initialisation", "no shared initialisation"),
    ({"aligned": None}, "shared initialisation", "shared initialisation unclear or not measured"),
    ({"noise_taken_out": False}, "noise taken out",
     "raw overlaps, whose noise differs between the two sides: take corrected ones, measured with folds"),
    ({"effective_sample_size": [400.0, 19.96]}, "effective sample size",
     "19.9 effective sample size in the weakest Fisher, and it takes 20"),
    ({"effective_sample_size": [400.0, 7.25]}, "effective sample size",
     "7.2 effective sample size in the weakest Fisher, and it takes 20"),
    ({"effective_sample_size": [400.0, math.nan]}, "effective sample size", "effective sample size were not measured"),
    ({"effective_sample_size": [math.inf]}, "effective sample size", "effective sample size were not measured"),
    ({"difference": Estimate.over_seeds([0.3])}, "interval", "an interval needs at least 2 seeds, and there are 1"),
    ({"difference": Estimate(0.3, (0.3, 0.3), "folds")}, "interval",
     "an interval needs at least 3 folds, and there are 2"),
    ({"difference": Estimate(0.3, (0.3, math.nan, 0.3), "folds")}, "interval", "undefined without one of the folds"),
    ({"difference": Estimate.over_seeds([0.3, math.nan])}, "interval", "the value is undefined"),
    ({"difference": Estimate(math.inf, (0.3, 0.3, 0.4), "folds")}, "interval", "the value is infinite"),
    ({"difference": Estimate(-math.inf, (-0.3, -0.3, -0.4), "folds")}, "interval", "the value is infinite"),
    ({"difference": Estimate.over_seeds([math.inf, math.inf])}, "interval", "the value is infinite"),
    ({"difference": Estimate.over_seeds([0.1] * 3)}, "interval", "the replicates are all equal: copies?"),
    ({"difference": Estimate(0.1, (0.1, 0.1 + 1e-15, 0.1), "folds")}, "interval",
     "the replicates are all equal: copies?"),
    ({"difference": Estimate(0.1, (0.0,) * 8, "folds")}, "interval", "the replicates are all equal: copies?"),
    ({"difference": AROUND_0}, "excludes 0", "its interval holds 0"),
])  # fmt: skip
def test_without_any_one_of_them_it_cannot_say_and_says_what_was_lacking(changed, name, words):
    found = contrast(**changed)
    assert found.answer == "inconclusive"
    assert found.lacking[0].name == name
    assert found.reason.startswith(words)
    assert "nan" not in found.reason


def test_everything_that_is_lacking_is_said():
    found = contrast(AROUND_0, same_rows=False, aligned=False, effective_sample_size=[3.0])
    assert len(found.lacking) == 4
    assert all(need.found in found.reason for need in found.lacking)


def test_masks_and_activities_have_no_effective_sample_size_to_ask_for():
    found = contrast(effective_sample_size=None, noise_taken_out=None)
    assert found.answer == "shares more"
    assert not {"effective sample size", "noise taken out"} & {need.name for need in found.needs}


def test_nothing_is_taken_for_granted():
    for missing in MET:
        given = {key: value for key, value in MET.items() if key != missing}
        with pytest.raises(TypeError, match=missing):
            contrast_verdict(UP, **given)
    for given in ({"aligned": True}, {"effective_sample_size": ENOUGH}):
        with pytest.raises(TypeError, match="missing"):
            null_verdict(UP, **given)
    for verdict in (contrast, null):
        with pytest.raises(UsageError, match="effective_sample_size is empty"):
            verdict(UP, effective_sample_size=[])


@pytest.mark.parametrize("value", [1, 0, "yes", "", [True], np.array([True, True]), math.nan])
def test_rows_and_start_are_bools(value):
    for changed in ({"same_rows": value}, {"aligned": value}, {"noise_taken_out": value}):
        with pytest.raises(UsageError, match=r"must be True or False, got "):
            contrast(**changed)
    with pytest.raises(UsageError, match=r"aligned .*must be True or False"):
        null(UP, aligned=value)
    with pytest.raises(UsageError, match="same_rows must be True or False"):
        contrast(same_rows=None)


def test_bools_of_numpy_are_bools():
    assert (
        contrast(same_rows=np.bool_(True), aligned=np.bool_(True), effective_sample_size=np.array(ENOUGH)) == contrast()
    )
    assert contrast(same_rows=np.bool_(False), aligned=np.bool_(False)) == contrast(same_rows=False, aligned=False)
    assert null(UP, aligned=np.bool_(False)) == null(UP, aligned=False)


def test_rounding_is_no_difference():
    exact = Estimate(1e-16, (1e-16,) * 8, "folds")
    assert contrast(exact).answer == "inconclusive"
    assert null(exact).answer == "not above its null"
    assert [need.name for need in contrast(exact).lacking] == ["excludes 0"]
    rounded = Estimate(9e-5, tuple(9e-5 + k * 1e-8 for k in range(8)), "folds")  # as bfloat16 moves small layers
    assert contrast(rounded).answer == contrast(-rounded).answer == "inconclusive"
    assert null(rounded).answer == "not above its null"
    small = Estimate(1.1e-4, tuple(1.1e-4 + k * 1e-8 for k in range(8)), "folds")
    assert (contrast(small).answer, contrast(-small).answer) == ("shares more", "shares less")
    assert "within 0.0001 of 0, which can be rounding" in contrast(rounded).reason
    assert "within 0.0001 of 0, which can be rounding" in null(rounded).reason
    assert "does not lie above 0" in null(-small).reason
    of_masks = {"effective_sample_size": None, "noise_taken_out": None}  # counts of bits are exact
    assert contrast(rounded, **of_masks).answer == "shares more"
    assert null(rounded, effective_sample_size=None).answer == "above its null"


@pytest.mark.parametrize("weights", [30, 300])
def test_what_bfloat16_changes_is_rounding(weights):
    """One Fisher in two scales, against another: the difference of the two overlaps is nothing but rounding."""
    generator = torch.Generator().manual_seed(weights)

    def folds():
        mean = 0.1 + torch.rand(weights, generator=generator)
        return [mean * torch.randn(25, weights, generator=generator).square().mean(0) for _ in range(8)]

    def stored(values, scale):
        parts = tuple(Fold(25, {"w": (value * scale).bfloat16()}) for value in values)
        return Footprint("fisher", {"w": torch.stack(values).mean(0) * scale}, 200, folds=parts)

    beyond = []
    for _ in range(40):
        one, other = folds(), folds()
        table = overlap({"a": stored(one, 1), "b": stored(other, 1), "scaled": stored(other, 0.7)})
        difference = table.contrast(("a", "b"), ("a", "scaled"))
        beyond.append(max(difference.low, -difference.high))
    assert max(beyond) > 0  # by itself it would be a difference
    assert max(beyond) < STORED


def test_copies_decide_nothing_and_near_copies_do():
    copied = Estimate.over_seeds([0.8, 0.8]) - Estimate.over_seeds([0.7, 0.7])
    assert contrast(copied).answer == null(copied).answer == contrast(-copied).answer == "inconclusive"
    assert "copies?" in null(copied).reason
    near = Estimate.over_seeds([0.1, 0.1 + 1e-9, 0.1])
    assert contrast(near).answer == "shares more"
    assert null(near).answer == "above its null"


def test_an_infinite_value_is_no_overlap():
    endless = Estimate(math.inf, (0.3, 0.3, 0.4), "folds")
    assert null(endless).answer == "inconclusive"
    assert str(contrast(endless)) == "inconclusive: the value is infinite"


def test_asking_for_more():
    met, unmet = Need("a", True, "this is so"), Need("b", False, "that is not so")
    more = contrast().asking([met], ["beware"])
    assert (more.answer, more.reason) == ("shares more", f"{contrast().reason}; also: beware")
    assert more.needs == (met, *contrast().needs)
    refused = contrast().asking([met, unmet], ["beware"])
    assert (refused.answer, refused.lacking) == ("inconclusive", (unmet,))
    assert refused.reason.startswith("that is not so; 0.1100 [")
    assert refused.reason.endswith("; also: beware")
    assert refused.brief == refused.reason.replace(", over seeds: about other trainings", "")
    assert "over seeds" not in refused.brief
    assert null(AROUND_0).asking([unmet]).answer == "inconclusive"


def test_controls_stand_beside_and_decide_nothing():
    controls = {"with start": UP * 10, "learned": "no"}
    found = contrast(controls=controls)
    assert found.controls == controls
    assert (found.answer, found.reason) == (contrast().answer, contrast().reason)
    assert null(UP, controls=controls).controls == controls
    assert contrast().controls == {}


@pytest.mark.parametrize(("estimate", "answer"), [
    (UP, "above its null"), (OVER_FOLDS, "above its null"), (AROUND_0, "not above its null"),
    (-UP, "not above its null"), (Estimate.over_seeds([0.3]), "inconclusive"),
    (Estimate.over_seeds([]), "inconclusive"),
])  # fmt: skip
def test_one_overlap_is_above_its_null_or_not_and_shares_nothing(estimate, answer):
    found = null(estimate)
    assert found.answer == answer
    assert "shares" not in str(found)
    assert (found.lacking == ()) == (answer == "above its null")


def test_a_null_takes_effective_sample_size_and_no_shared_initialisation_but_says_so():
    assert null(UP, effective_sample_size=[19.0]).answer == "inconclusive"
    assert null(UP, effective_sample_size=None).answer == "above its null"
    stranger = null(UP, aligned=False)
    assert stranger.answer == "above its null"
    assert "no shared initialisation, so this is no sharing" in stranger.reason
    assert "shared initialisation unclear or not measured" in null(UP, aligned=None).reason
    assert "shared initialisation" not in null(UP).reason


def test_permutations():
    above = permutation_verdict(0.95, 0.92, above=True, p=0.004)
    assert str(above) == "above its null: similarity 0.9500, null 0.9200, p 0.004"
    assert above.estimate.missing
    assert permutation_verdict(0.95, 0.96, above=False).answer == "not above its null"
    assert permutation_verdict(math.nan, math.nan, above=False).answer == "inconclusive"


def test_a_number_alone_is_no_estimate():
    for verdict in (lambda: contrast(0.3), lambda: null(0.3)):
        with pytest.raises(UsageError, match=r"expected an Estimate, such as table\.contrast"):
            verdict()


def test_verdicts_do_not_change():
    with pytest.raises(FrozenInstanceError):
        contrast().answer = "shares less"  # type: ignore[misc]


def test_several_at_once():
    assert "about 1.0 would exclude 0" in by_chance(20, "contrasts")
    assert "about 0.5 would seem to be" in by_chance(20, "nulls")  # one side of the interval only


def test_the_table_of_needs_is_what_verdicts_ask():
    rows = {row[0]: row[1:] for row in needs_grid().rows}
    assert list(rows) == ASKED_ELSEWHERE + [need.name for need in contrast().needs]
    asked = {name for name, (_, _, null) in rows.items() if null != "not asked"}
    assert asked == {*ASKED_ELSEWHERE[1:5], *(need.name for need in null(UP).needs)}
    assert str(SMALLEST_EFFECTIVE) in rows["effective sample size"][0]
    assert re.search("95 %.* above 0", rows["excludes 0"][0])
    assert {row[1] for row in rows.values()} == {"inconclusive"}
    assert rows["excludes 0"][2] == "not above its null"
