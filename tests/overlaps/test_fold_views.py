"""How tables with folds are shown, written and read back."""

import json
import math

import numpy as np
import pytest
from overlaps.folded import fisher, squares

from commonweight.base.errors import IntegrityError
from commonweight.base.estimate import Estimate
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps import OverlapTable, overlap
from commonweight.overlaps.table.fold_layout import interval


def table(n=2, folds=8, **options):
    return overlap({name: fisher(squares, folds=folds, seed=seed, **options) for seed, name in enumerate("abcd"[:n])})


def test_two_show_raw_corrected_noise_ceilings_and_null_per_layer_and_pooled():
    found = table()
    text = found.to_markdown()
    assert (
        "| layer | overlap | corrected [95 %] | noise ceiling, a | noise ceiling, b | null | trace share, a | trace "
        "share, b |" in text
    )
    body, whole = found.estimate("corrected", "a", "b", "body"), found.estimate("corrected", "a", "b")
    null = found.null.strictest.by_layer["body"][0, 1]
    assert f"| body | {found.by_layer['body'][0, 1]:.4f} | {body.value:.4f} [{body.low:.4f}, {body.high:.4f}] |" in text
    assert f"| {null:.4f} ({found.null.which('body')[0, 1]}) |" in text
    assert f"| **pooled** | **{found.pooled[0, 1]:.4f}** | **{whole.value:.4f} [{whole.low:.4f}" in text
    assert "leaving out each of 8 folds of source rows (jackknife, t with 7 degrees" in text
    assert "measure with folds" not in text
    assert "[" in found.to_markdown(by="parameter").split("body.bias")[1].split("\n")[0]
    assert found.to_markdown(by=0).count("whole network") == 1
    assert "corrected [95 %]" in found._repr_html_()


def test_three_show_every_pair():
    found = table(3)
    text = found.to_markdown(decimals=3)
    extrapolated = found.estimate("extrapolated", "a", "c")
    row = next(line for line in text.splitlines() if line.startswith("| a and c |"))
    assert f"{extrapolated.value:.3f} [{extrapolated.low:.3f}, {extrapolated.high:.3f}]" in row
    for title in ("All weights together", "Corrected [95 %], by layer", "Null, by layer", "Noise ceiling by layer"):
        assert f"**{title}**" in text


def test_two_folds_say_that_there_is_no_interval():
    text = table(folds=2).to_markdown()
    assert "There are 2 folds, and intervals need at least 3." in text
    assert "jackknife" not in text


def test_above_one_is_not_one():
    assert interval(Estimate(1.00001, (), "folds"), 4) == ">1.0000"
    assert interval(Estimate(1.0, (), "folds"), 4) == "1.0000"
    assert interval(Estimate(0.99999, (), "folds"), 4) == ">0.9999"
    assert interval(Estimate(math.nan, (), "folds"), 4) == "–"


def test_the_frame_has_intervals():
    found = table(3)
    frame = found.to_frame().set_index(["layer", "a", "b"])
    one = frame.loc["body", "a", "c"]
    corrected = found.estimate("corrected", "a", "c", "body")
    assert (one["corrected"], one["corrected_low"], one["corrected_high"]) == (
        corrected.value,
        corrected.low,
        corrected.high,
    )
    assert one["noise_ceiling_b"] == found.noise_ceiling.by_layer["body"][2]
    assert one["null_permutes"] == found.null.which("body")[0, 2]
    assert "corrected" not in overlap({"a": plain(fisher(squares)), "b": plain(fisher(squares, seed=1))}).to_frame()
    assert len(found.to_frame("parameter")) == 4 * 3


def plain(footprint):
    return Footprint(footprint.kind, footprint.tensors, footprint.count, footprint.metadata)


def test_json_keeps_the_folds_per_layer_without_loss():
    found = table(3)
    written = found.to_json()
    back = OverlapTable.from_json(written)
    assert back.to_json() == written
    assert back.resampled.per == "layer"
    for of in ("raw", "corrected", "extrapolated", "null", "above_null"):
        for layer in (*found.layers, None):
            one, other = back.estimate(of, "a", "c", layer), found.estimate(of, "a", "c", layer)
            assert (one.value, *one.replicates) == pytest.approx((other.value, *other.replicates), abs=1e-13)
    assert back.roll_up(0).corrected.by_layer[""] == pytest.approx(found.corrected.pooled, abs=1e-13)
    assert back.to_markdown() == found.to_markdown()


def test_json_of_an_earlier_release_has_no_null_and_says_so():
    found = table()
    record = json.loads(found.to_json())
    for layer in record["folds"]["layers"].values():
        layer["null"] = layer.pop("null_of_halves")
    back = OverlapTable.from_json(json.dumps(record))
    assert back.estimate("corrected", "a", "b") == found.estimate("corrected", "a", "b")
    assert math.isnan(back.estimate("null", "a", "b").value)
    assert math.isnan(back.estimate("above_null", "a", "b", "body").value)
    assert back.null.which()[0, 1] == ""
    assert "There is no null: this table was written by an earlier release" in back.to_markdown()
    assert "no null" not in found.to_markdown()
    verdict = back.verdict(("a", "b"))
    assert verdict.answer == "inconclusive"
    assert ("interval", "missing") in [(each.code, each.fault) for each in verdict.lacking]


def test_json_forgets_the_single_parameters_of_a_layer_and_says_so():
    back = OverlapTable.from_json(table().to_json())
    assert math.isnan(back.estimate("corrected", "a", "b", parameter="body.bias").value)
    assert np.isfinite(back.estimate("corrected", "a", "b", parameter="head.weight").value)  # alone in its layer
    assert "there are no such numbers per parameter" in back.to_markdown(by="parameter")
    assert "no such numbers" not in table().to_markdown(by="parameter")


def test_json_for_other_readers():
    found = table()
    derived = json.loads(found.to_json())["derived"]
    estimate = found.estimate("corrected", "a", "b")
    assert derived["pairs"][0]["corrected"] == {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    assert derived["layers"][0]["pairs"][0]["null_permutes"] in {"entries", "rows", "columns"}
    assert derived["noise_ceiling"] == dict(zip("ab", found.noise_ceiling.pooled.tolist(), strict=True))


def test_damaged_folds_are_refused():
    record = json.loads(table().to_json())
    del record["folds"]["layers"]["body"]
    with pytest.raises(IntegrityError, match="damaged"):
        OverlapTable.from_json(json.dumps(record))
    record = json.loads(table().to_json())
    record["folds"]["layers"]["body"]["half"] += " 1.0"
    with pytest.raises(IntegrityError, match="damaged"):
        OverlapTable.from_json(json.dumps(record))
    del record["folds"]
    assert OverlapTable.from_json(json.dumps(record)).resampled is None
