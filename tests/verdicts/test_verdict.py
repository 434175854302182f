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
from commonweight.footprints.copies import RowCounts
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.verdicts.evidence import Corrected, Evidence
from commonweight.verdicts.rules import NEEDS, NOT_ASKED, SMALLEST_EFFECTIVE, STANDS, STORED
from commonweight.verdicts.verdict import Verdict, contrast_verdict, judge, null_verdict

UP = Estimate.over_seeds([0.10, 0.11, 0.12])
OVER_FOLDS = Estimate(0.1, (0.09, 0.10, 0.11, 0.10), "folds")
AROUND_0 = Estimate.over_seeds([-0.1, 0.0, 0.12])
ENOUGH = [20.0, 300.5]
MET = {"same_rows": True, "aligned": True, "noise_taken_out": True, "effective_sample_size": ENOUGH}
OF_ESTIMATES = [
    "same rows",
    "shared initialisation",
    "noise taken out",
    "effective sample size",
    "interval",
    "excludes 0",
]
"""What is asked of an estimate of one's own."""


def contrast(difference=UP, **changed) -> Verdict:
    return contrast_verdict(difference, **(MET | changed))


def known(**more) -> Verdict:
    """All is met but what is changed."""
    met = {"single": False, "estimate": UP, "aligned": (True,), "effective_sample_size": ENOUGH, "same_rows": True}
    return judge(Evidence(**(met | more)))


def null(estimate, **changed) -> Verdict:
    return null_verdict(estimate, **({"aligned": True, "effective_sample_size": ENOUGH} | changed))


@pytest.mark.parametrize(("difference", "answer"), [
    (UP, "shares more"), (-UP, "shares less"), (AROUND_0, "inconclusive"), (-AROUND_0, "inconclusive"),
    (OVER_FOLDS, "shares more"), (-OVER_FOLDS, "shares less"),
])  # fmt: skip
def test_a_contrast_with_all_it_takes(difference, answer):
    found = contrast(difference)
    assert found.answer == answer
    assert [finding.code for finding in found.findings] == OF_ESTIMATES
    assert (found.lacking == ()) == (answer != "inconclusive")
    assert found.estimate == difference


@pytest.mark.parametrize(("changed", "code", "fault"), [
    ({"same_rows": False}, "same rows", "differ"),
    ({"aligned": False}, "shared initialisation", "none"),
    ({"aligned": None}, "shared initialisation", "unclear"),
    ({"noise_taken_out": False}, "noise taken out", "raw"),
    ({"effective_sample_size": [400.0, 19.96]}, "effective sample size", "few"),
    ({"effective_sample_size": [400.0, 7.25]}, "effective sample size", "few"),
    ({"effective_sample_size": [400.0, math.nan]}, "effective sample size", "not measured"),
    ({"effective_sample_size": [math.inf]}, "effective sample size", "not measured"),
    ({"difference": Estimate.over_seeds([0.3])}, "interval", "missing"),
    ({"difference": Estimate(0.3, (0.3, 0.3), "folds")}, "interval", "missing"),
    ({"difference": Estimate(0.3, (0.3, math.nan, 0.3), "folds")}, "interval", "missing"),
    ({"difference": Estimate.over_seeds([0.3, math.nan])}, "interval", "missing"),
    ({"difference": Estimate(math.inf, (0.3, 0.3, 0.4), "folds")}, "interval", "infinite"),
    ({"difference": Estimate(-math.inf, (-0.3, -0.3, -0.4), "folds")}, "interval", "infinite"),
    ({"difference": Estimate.over_seeds([math.inf, math.inf])}, "interval", "infinite"),
    ({"difference": Estimate.over_seeds([0.1] * 3)}, "interval", "copies"),
    ({"difference": Estimate(0.1, (0.1, 0.1 + 1e-15, 0.1), "folds")}, "interval", "copies"),
    ({"difference": Estimate(0.1, (0.0,) * 8, "folds")}, "interval", "copies"),
    ({"difference": AROUND_0}, "excludes 0", "includes"),
])  # fmt: skip
def test_without_any_one_of_them_it_is_inconclusive(changed, code, fault):
    found = contrast(**changed)
    assert found.answer == "inconclusive"
    assert (found.lacking[0].code, found.lacking[0].fault) == (code, fault)
    assert "nan" not in found.reason


def test_everything_that_is_lacking_is_found():
    found = contrast(AROUND_0, same_rows=False, aligned=False, effective_sample_size=[3.0])
    assert [each.code for each in found.lacking] == [
        "same rows", "shared initialisation", "effective sample size", "excludes 0",
    ]  # fmt: skip


def test_masks_and_activities_have_no_effective_sample_size_to_ask_for():
    found = contrast(effective_sample_size=None, noise_taken_out=None)
    assert found.answer == "shares more"
    assert not {"effective sample size", "noise taken out"} & {each.code for each in found.findings}


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
        with pytest.raises(UsageError, match="effective_sample_size must be a Collection"):
            verdict(UP, effective_sample_size=50.0)


@pytest.mark.parametrize("value", [1, 0, "yes", "", [True], np.array([True, True]), math.nan])
def test_rows_and_initialisation_are_bools(value):
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
    assert [each.code for each in contrast(exact).lacking] == ["excludes 0"]
    rounded = Estimate(9e-5, tuple(9e-5 + k * 1e-8 for k in range(8)), "folds")  # as bfloat16 moves small layers
    assert contrast(rounded).answer == contrast(-rounded).answer == "inconclusive"
    assert null(rounded).answer == "not above its null"
    small = Estimate(1.1e-4, tuple(1.1e-4 + k * 1e-8 for k in range(8)), "folds")
    assert (contrast(small).answer, contrast(-small).answer) == ("shares more", "shares less")
    assert [each.fault for each in (*contrast(rounded).lacking, *null(rounded).lacking)] == ["rounding", "rounding"]
    assert [each.fault for each in null(-small).lacking] == ["not above"]
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
    assert null(copied).lacking[0].fault == "copies"
    near = Estimate.over_seeds([0.1, 0.1 + 1e-9, 0.1])
    assert contrast(near).answer == "shares more"
    assert null(near).answer == "above its null"


def test_an_infinite_value_is_no_overlap():
    endless = Estimate(math.inf, (0.3, 0.3, 0.4), "folds")
    assert null(endless).answer == "inconclusive"
    assert str(contrast(endless)) == "inconclusive: the value is infinite"


def test_controls_stand_beside_and_decide_nothing():
    larger, smaller = {"with start": UP * 10}, {"with start": UP * 0.1}
    found = known(controls=larger)
    assert (found.answer, found.controls, found.lacking) == ("shares more", larger, ())
    assert [(each.code, each.found) for each in found.beware] == [
        ("larger than controls", {"controls": ("with start",)})
    ]
    assert known(controls=smaller).beware == ()
    assert known(controls={"with start": UP * math.nan}).beware
    assert [each.answer for each in (known(estimate=-UP, controls=smaller), known(controls={}))] == [
        "shares less", "shares more",
    ]  # fmt: skip
    assert known(estimate=AROUND_0, controls=larger).beware == ()
    assert contrast().controls == {}


@pytest.mark.parametrize(("facts", "code"), [
    ({"not_learned": ("a",)}, "shortcut learned"), ({"one_and_the_same": (("a", "b"),)}, "two footprints"),
    ({"rows": (("a", None),)}, "counted rows"),
    ({"rows": (("a", RowCounts(9, 3, 9)),)}, "distinct rows"), ({"one_network": (("a", "b"),)}, "two networks"),
    ({"beyond": -UP}, "beyond the null too"),
])  # fmt: skip
def test_what_is_known_of_tables_and_lacking_is_inconclusive(facts, code):
    found = known(**facts)
    assert (found.answer, [each.code for each in found.lacking]) == ("inconclusive", [code])
    met = dict.fromkeys(facts, ())
    if "beyond" in facts:
        met = {"beyond": UP}
    assert known(**met).answer == "shares more"


def test_rows_that_were_not_counted_cost_a_contrast_its_answer_and_are_told_of_a_single_overlap():
    rows = (("a", None), ("b", RowCounts(9, 9, 0)))
    assert known(rows=rows).answer == "inconclusive"
    alone = known(rows=rows, single=True)
    assert (alone.answer, [each.code for each in alone.beware]) == ("above its null", ["counted rows"])
    copied = known(rows=(("a", None), ("b", RowCounts(9, 3, 9))), single=True)
    assert copied.answer == "inconclusive"  # by the copies that were


def of_overlap(value, spread, times=1):
    overlap = Estimate(value, tuple(value + spread * (-1) ** k for k in range(8)), "folds")
    found = known(corrected=(Corrected(("a", "b"), None, overlap),) * times)
    return overlap, "at most 1" not in [each.code for each in found.lacking]


def test_the_whole_interval_of_a_corrected_overlap_lies_above_1_by_more_than_rounding():
    wide, _ = of_overlap(1.05, 1.0)
    for half, met in ((0.06, True), (0.04, False)):
        assert of_overlap(1.05, half / wide.half_width())[1] == met
    assert not of_overlap(1 + 2e-4, 1e-6)[1]
    assert of_overlap(1 + 0.9e-4, 1e-6)[1]
    assert of_overlap(1.5, 1.0)[1]


def test_several_corrected_overlaps_have_wider_intervals():
    wide, _ = of_overlap(1.05, 1.0)
    spread = 0.045 / wide.half_width()
    assert [of_overlap(1.05, spread, times)[1] for times in (1, 2, 3)] == [False, True, True]


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
    assert [(each.code, each.fault) for each in stranger.beware] == [("shared initialisation", "none")]
    assert [each.fault for each in null(UP, aligned=None).beware] == ["unclear"]
    assert null(UP).beware == ()


def test_a_number_alone_is_no_estimate():
    for verdict in (lambda: contrast(0.3), lambda: null(0.3)):
        with pytest.raises(UsageError, match=r"expected an Estimate, such as table\.contrast"):
            verdict()


def test_verdicts_do_not_change():
    with pytest.raises(FrozenInstanceError):
        contrast().answer = "shares less"  # type: ignore[misc]


def test_the_table_of_needs_is_what_verdicts_ask():
    needs = {need.code: need for need in NEEDS}
    assert len(needs) == len(NEEDS)
    of_one = [need.code for need in NEEDS if need.single != NOT_ASKED and need.code in OF_ESTIMATES]
    assert [each.code for each in null(UP).findings] == of_one
    assert str(SMALLEST_EFFECTIVE) in needs["effective sample size"].demand
    assert re.search("95 %.* above 0", needs["excludes 0"].demand)
    assert {need.contrast for need in NEEDS} == {"inconclusive", STANDS}
    assert {need.single for need in NEEDS} == {"inconclusive", "not above its null", STANDS, NOT_ASKED}
    assert needs["excludes 0"].single == "not above its null"
