"""What the record of reproductions/two_curves.py says follows from its numbers, and docs/findings.md tells them."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
RECORD = json.loads((ROOT / "reproductions" / "results" / "two_curves.json").read_text(encoding="utf-8"))
FULL = json.loads((ROOT / "reproductions" / "results" / "two_curves_full.json").read_text(encoding="utf-8"))
CONTRASTS = RECORD["contrasts_over_seeds"]


def side(interval):
    return (interval["low"] > 0) - (interval["high"] < 0)


@pytest.mark.parametrize("name", [name for name in CONTRASTS if name.startswith("Fisher")])
def test_a_word_takes_overlaps_and_overlaps_beyond_the_null_on_one_side(name):
    for question, found in CONTRASTS[name].items():
        sides = (side(found), side(found["corrected_minus_null"]))
        if found.get("answer") == "shares more":
            assert sides == (1, 1), question
        elif found.get("answer") == "shares less":
            assert sides == (-1, -1), question
        elif "answer" in found and "independent" not in name:
            assert sides not in {(1, 1), (-1, -1)}, question


def test_one_network_and_flipped_bits_get_no_word_and_others_do():
    wordless = {name for name, of in CONTRASTS.items() if not any("answer" in each for each in of.values())}
    for part in ("untrained", "both Fishers at the end", "Flipped bits"):
        assert any(part in name for name in wordless)
    assert "Fisher overlap, in sequence with EWC" not in wordless


def test_independent_initialisations_share_nothing():
    answers = {each["answer"] for each in CONTRASTS["Fisher overlap, independent initialisations"].values()}
    assert answers == {"inconclusive"}


def test_the_findings_tell_the_rise_of_both():
    question = "26 px: last over first layer"
    ewc, start = (
        CONTRASTS[f"Fisher overlap, {arm}"][question] for arm in ("in sequence with EWC", "the start itself, untrained")
    )
    full = FULL["seeds"][0]["differences"]
    both = ("corrected", "corrected − null")
    numbers = [each["value"] for found in (ewc, start) for each in (found, found["corrected_minus_null"])]
    numbers += [full[f"{arm}, {of}"][question]["value"] for arm in ("ewc", "untrained") for of in both]
    told = FINDINGS.partition("## Against depth")[2].partition("\n## ")[0]
    for value in numbers:
        assert f"{value:.3f}".lstrip("0") in told
