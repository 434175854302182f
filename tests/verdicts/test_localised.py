"""Verdicts on sets: every need above 0, the share tells the whole from a part, and Holm over the family."""

from __future__ import annotations

import numpy as np
import pytest

from commonweight.base.resampled import Resampled
from commonweight.verdicts import SetClaim, holm, judge_sets
from commonweight.verdicts.localised import which_hold


def around(value, half, count=1999):
    return Resampled(value, np.linspace(value - half, value + half, count))


CLEAR = around(0.3, 0.1)
HOLDS_0 = around(0.05, 0.2)
BARELY = Resampled(0.1, np.concatenate([np.full(35, -0.1), np.linspace(0.05, 0.2, 1964)]))
"""About .036 two-sided: above 0 alone, not beside others."""


def judged(*claims):
    return judge_sets(claims)


@pytest.mark.parametrize(
    ("needs", "share", "outcome", "lacking"),
    [
        ([CLEAR], around(0.8, 0.1), "suffices", ""),
        ([CLEAR], around(0.5, 0.1), "in part", ""),
        ([CLEAR], around(0.2, 0.1), "in part", ""),
        ([HOLDS_0], around(0.8, 0.1), "inconclusive", "holds 0"),
        ([CLEAR, HOLDS_0], around(0.8, 0.1), "inconclusive", "holds 0"),
        ([Resampled.undefined("too thin")], around(0.8, 0.1), "inconclusive", "undefined"),
        ([CLEAR], Resampled.undefined("no gain"), "inconclusive", "share undefined"),
        ([BARELY], around(0.8, 0.1), "suffices", ""),
    ],
)
def test_outcomes(needs, share, outcome, lacking):
    named = {f"need {number}": need for number, need in enumerate(needs)}
    (found,) = judged(SetClaim("suffices", "A", named, share))
    assert (found.outcome, found.lacking) == (outcome, lacking)


def test_all_needs_have_to_hold_and_no_share_is_needed():
    (found,) = judged(SetClaim("shared", "A∩B", {"one": CLEAR, "other": CLEAR}))
    assert found.outcome == "shared"
    (found,) = judged(SetClaim("shared", "A∩B", {"one": CLEAR, "other": HOLDS_0}))
    assert found.outcome == "inconclusive"
    assert str(found) == (
        "A∩B is not shown to be shared: other is [-0.140, 0.240], not above 0".replace(
            "[-0.140", f"{HOLDS_0.short().split(' ')[0]} [-0.140"
        )
    )


def test_an_answer_names_the_claims_that_hold():
    claims = [SetClaim("shared", "A∩B", {"one": CLEAR}), SetClaim("suffices", "A", {"one": HOLDS_0})]
    assert which_hold(judged(*claims)) == "1 of 2 claims hold: A∩B is shared. The others are inconclusive."
    assert which_hold(judged(claims[0])) == "1 of 1 claims hold: A∩B is shared."
    assert which_hold(judged(claims[1])) == "none of 1 claims is shown to hold (suffices)."


def test_holm_takes_an_answer_in_a_larger_family():
    (alone,) = judged(SetClaim("shared", "A", {"need": BARELY}))
    many = judged(*(SetClaim("shared", "A", {"need": BARELY}) for _ in range(3)))
    assert alone.outcome == "shared"
    assert {each.outcome for each in many} == {"inconclusive"}
    assert {each.lacking for each in many} == {"family"}
    assert many[0].family == 3
    assert "after Holm's correction" in many[0].reason


def test_holm_is_that_of_the_paper():
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_an_equivalence_is_shown_by_an_upper_end_and_not_by_a_missing_difference():
    small, wide = around(0.0, 0.05), around(0.0, 0.5)
    (found,) = judged(SetClaim("specific", "A", {"bound": small.below(0.1)}))
    assert found.outcome == "specific"
    (found,) = judged(SetClaim("specific", "A", {"bound": wide.below(0.1)}))
    assert found.outcome == "inconclusive"
