"""docs/evidence.md tells what reproductions/safeguards.py and fold_keys.py found."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "reproductions" / "results"
FOUND = json.loads((RESULTS / "safeguards.json").read_text(encoding="utf-8"))
TOLD = " ".join((ROOT / "docs" / "evidence.md").read_text(encoding="utf-8").split())


def verdicts(found):
    return sum(found["answers"].values()) - found["answers"].get("inconclusive", 0)


def test_the_page_on_evidence_tells_what_was_found():
    order = FOUND["order"]["corrected overlap without digests"]
    untrue, together = (
        FOUND["copies"][words] for words in ("a source row for each copy (untrue)", "one source row for all copies")
    )
    drawn, noise = FOUND["few_values"]["a source row for each"], FOUND["noise_in_common"]
    of_same, short = noise["raw - null on the same rows"], FOUND["short_folds"]
    count = FOUND["repetitions"]
    for said in (
        f"came out at {order['least']:.2f} to {order['most']:.2f}",
        f"{untrue['held']} of {count} intervals held the truth, and {untrue['wrong sign']} of {verdicts(untrue)} "
        "verdicts had the wrong sign",
        f"(then {together['held']} of {count} intervals held the truth, and an effective sample size of "
        f"{together['effective']:.0f} decided nothing)",
        f"one each ({drawn['held']} of {count}, and {verdicts(drawn)} verdicts, all of the right sign)",
        f"about {FOUND['few_values']['no source rows']['effective']:.0f} different rows",
        f"by .{1000 * of_same['least']:03.0f} to .{1000 * of_same['most']:03.0f} in {count} of {count} repetitions",
        f"up to {10000 * short['2']['most']:.0f}e-4 (2 weights), {10000 * short['30']['most']:.1f}e-4 (30) and "
        f"{100000 * short['3000']['most']:.1f}e-5 (3000)",
    ):
        assert said in TOLD
    assert FOUND["order"]["refused with digests"] == count
    assert drawn["wrong sign"] == verdicts(FOUND["copies"]["no source rows"]) == verdicts(together) == 0
    assert noise["corrected - null above 0"] == 0
    assert max(map(abs, noise["on 20,000 rows"].values())) < 1e-4


def test_rows_keyed_by_content_fail_without_a_word():
    found = json.loads((RESULTS / "fold_keys.json").read_text(encoding="utf-8"))["found"]

    def off(case, key):
        return f".{1000 * abs(found[f'40 sparse inputs, linear: {case}'][key]['mean']):03.0f}"

    case = "the same rows, shuffled"
    assert f"| {off(case, 'running number')} too high, and refused | {off(case, 'inputs')} |" in TOLD
    case = "augmented rows"
    assert f"| {off(case, 'running number')} | {off(case, 'inputs')} too high, and nothing notices |" in TOLD


def test_folds_in_bfloat16_move_nothing_that_can_be_seen():
    found = json.loads((RESULTS / "short_folds.json").read_text(encoding="utf-8"))
    most = max(each["most"] for of in found["in standard errors"].values() for each in of.values())
    assert most < found["asked"]
    assert f"by at most .{1000 * most:03.0f} standard errors" in TOLD


def test_folds_of_a_sample_of_the_weights():
    found = json.loads((RESULTS / "sampled_folds.json").read_text(encoding="utf-8"))
    rows, whole, _, eight = found["designs"].values()
    pieces, asked = eight["3.5%"], found["asked"]

    def two(number):
        return f"{number:.2f}".removeprefix("0")

    layer, block, pooled = (two(pieces[level]["corrected"]["95 %"]) for level in ("layer", "block", "pooled"))
    assert f"{100 * pieces['weights with folds']:.1f} % of the weights, just reach it" in TOLD
    assert f"({layer} in a layer, {block} in an encoder block, {pooled} in all weights)" in TOLD
    assert f"by {two(pieces['layer']['noise ceiling']['95 %'])} standard errors in a layer" in TOLD
    seconds = found["cost"]["processor seconds"]
    assert round(seconds["all folds"] / seconds["raw"], -1) == 30
    assert "thirty times as dear as a raw one" in TOLD
    for shares in (rows, whole):
        for of in shares.values():
            assert of["disk"] > asked["disk"] or of["layer"]["corrected"]["95 %"] > asked["standard errors"]
