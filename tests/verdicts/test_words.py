"""The words of verdicts: a sentence for every fault, made of what was found."""

from __future__ import annotations

import math
import re

import pytest

from commonweight.base.estimate import Estimate
from commonweight.footprints.copies import RowCounts
from commonweight.verdicts.evidence import Corrected, Evidence
from commonweight.verdicts.rules import NEEDS, NOT_ASKED, STANDS, Finding
from commonweight.verdicts.verdict import judge
from commonweight.verdicts.words import MOST_NAMED, OVER, by_chance, sentence

UP = Estimate.over_seeds([0.10, 0.11, 0.12])
AROUND_0 = Estimate.over_seeds([-0.1, 0.0, 0.12])
NOTHING = Estimate(9e-5, tuple(9e-5 + k * 1e-8 for k in range(8)), "folds")
ABOVE_1 = Estimate(1.2, (1.19, 1.2, 1.21), "folds")
STRANGE = {"strange": ("head",), "strange_share": 0.625}
MANY = tuple(f"layer {k}" for k in range(MOST_NAMED + 3))


def told(**known):
    met = {"single": False, "estimate": UP, "aligned": (True,), "effective_sample_size": [40.0], "same_rows": True}
    return judge(Evidence(**(met | known)))


CASES = [
    ({"not_learned": ("op", "st")}, "own shortcut not learned by 'op' and 'st'"),
    ({"one_and_the_same": (("a", "b"), ("c", "d"))}, "'a' and 'b', 'c' and 'd' are the same footprint"),
    ({"rows": (("a", None),)}, "copies among the rows were not counted"),
    (
        {"rows": (("a", RowCounts(360, 30, 360)),)},
        "360 of 360 rows of 'a' have copies in other folds (30 are distinct): give all copies of a row one "
        "source_row, or each its own if they are independent draws",
    ),
    (
        {"corrected": (Corrected(("a", "b"), None, ABOVE_1),)},
        f"the corrected overlap of 'a' and 'b' is above 1, {ABOVE_1}: do they have noise in common?",
    ),
    (
        {"corrected": (Corrected(("a", "b"), "fc", ABOVE_1),)},
        f"the corrected overlap of 'a' and 'b' in layer 'fc' is above 1, {ABOVE_1}: do they have noise in common?",
    ),
    ({"one_network": (("a", "b"),)}, "'a' and 'b' are of one network, which shares all its weights with itself"),
    ({"beyond": AROUND_0}, f"the difference in corrected - null does not agree: {AROUND_0}"),
    ({"same_rows": False}, "the two sides have different source rows"),
    ({"aligned": (True, False)}, "no shared initialisation, so overlap is not sharing"),
    ({"aligned": (None,)}, "it is unclear, or was not measured, whether there is a shared initialisation"),
    (
        {"aligned": (False,), **STRANGE},
        "no shared initialisation in 'head' (up to 62% of a trace), so overlap is not sharing",
    ),
    (
        {"aligned": (False,), "strange": ("", "head"), "strange_share": 1.0},
        "no shared initialisation in the whole network and 'head', so overlap is not sharing",
    ),
    (
        {"noise_taken_out": False},
        "noise lowers raw overlaps, by unequal amounts: take corrected ones, which need folds",
    ),
    ({"effective_sample_size": [40.0, 19.96]}, "the smallest effective sample size is 19.9, and 20 are needed"),
    ({"effective_sample_size": [math.nan]}, "an effective sample size was not measured"),
    ({"estimate": Estimate.over_seeds([0.3])}, "an interval needs at least 2 seeds, and there are 1"),
    ({"estimate": Estimate(math.inf, (0.3, 0.3, 0.4), "folds")}, "the value is infinite"),
    ({"estimate": Estimate.over_seeds([0.1] * 3)}, "all replicates are equal: are they copies?"),
    ({"estimate": AROUND_0}, "the interval includes 0"),
    ({"estimate": AROUND_0, "single": True}, "the interval does not lie above 0"),
    ({"estimate": NOTHING}, "the interval comes within 0.0001 of 0, which can be rounding"),
    ({"left_out": 3}, "only common parameters were compared, and 3 left out"),
    (STRANGE, "no shared initialisation in 'head' (up to 62% of a trace)"),
    (
        {"strange": MANY, "strange_share": 0.25},
        "no shared initialisation in 'layer 0', 'layer 1', 'layer 2', 'layer 3', 'layer 4', 'layer 5' and 3 more (up "
        "to 25% of a trace)",
    ),
    ({"noise_ceilings": (0.9, math.nan, 0.614)}, "a noise ceiling of 0.61 leaves some noise in"),
    ({"controls": {"with start": UP}}, "not shown to be larger than the same contrast 'with start'"),
]


@pytest.mark.parametrize(("known", "words"), CASES)
def test_a_sentence_for_every_fault(known, words):
    (finding,) = (each for each in told(**known).findings if not each.met)
    assert sentence(finding) == words


def test_none_is_missing():
    said = {(f.code, f.fault) for known, _ in CASES for f in told(**known).findings if not f.met}
    assert said == {(need.code, fault) for need in NEEDS for fault in need.words}


def test_the_reason_tells_what_is_lacking_the_number_and_what_to_beware_of():
    number, over = "0.1100 [0.0852, 0.1348] (95 %, 3 seeds)", OVER["seeds"]
    assert str(told()) == f"shares more: {number}, {over}"
    found = told(same_rows=False, not_learned=("op",), left_out=2, **STRANGE)
    lacking, also = ("; ".join(map(sentence, each)) for each in (found.lacking, found.beware))
    assert found.reason == f"{lacking}; {number}, {over}; also: {also}"
    assert found.brief == f"{lacking}; {number}; also: {also}"
    assert lacking == "own shortcut not learned by 'op'; the two sides have different source rows"


def test_where_there_is_no_interval_the_value_is_told_if_there_is_one():
    assert told(estimate=Estimate.over_seeds([0.3])).reason.endswith("there are 1; the value is 0.3000")
    assert told(estimate=Estimate.over_seeds([math.nan])).brief == "the value is undefined"
    assert told(estimate=Estimate(math.inf, (0.3, 0.3, 0.4), "folds")).brief == "the value is infinite"


def test_a_word_or_two_for_a_table_of_layers():
    shorts = [need.short for need in NEEDS if {need.contrast, need.single} - {STANDS, NOT_ASKED}]
    assert "" not in shorts
    assert len(set(shorts)) == len(shorts)
    assert [told(estimate=each).short for each in (UP, -UP, AROUND_0)] == ["more", "less", "inconclusive (holds 0)"]
    assert [told(estimate=each, single=True).short for each in (UP, AROUND_0)] == ["above", "not above"]
    assert told(same_rows=False, estimate=AROUND_0).short == "inconclusive (other rows)"


def test_several_at_once():
    assert by_chance(20, "contrasts") == (
        "Each interval is at 95 %, and there are 20: if nothing differed, about 1.0 would exclude 0 by chance."
    )
    assert by_chance(20, "nulls").endswith(  # one side of the interval only
        "there are 20: if nothing were above its null, about 0.5 would appear to be by chance."
    )


def test_no_sentence_has_a_place_that_is_not_filled():
    with pytest.raises(KeyError):
        sentence(Finding("shortcut learned", "not learned"))
    assert not [need.code for need in NEEDS if re.search(r"[.:]$", "".join(need.words.values()))]
