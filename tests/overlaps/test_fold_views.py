"""How tables with folds are shown, written and read back."""

import json
import math

import pandas as pd
import pytest
from damage import content
from overlaps.folded import fisher, squares

from commonweight import OverlapTable, overlap
from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps.resampling.splits import splits_of
from commonweight.overlaps.table.layout import beyond


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
    corrected = found.estimate("corrected", "a", "c")
    row = next(line for line in text.splitlines() if line.startswith("| a and c |"))
    assert f"{corrected.value:.3f} [{corrected.low:.3f}, {corrected.high:.3f}]" in row
    for title in ("All weights together", "Corrected [95 %], by layer", "Null, by layer", "Noise ceiling by layer"):
        assert f"**{title}**" in text


def test_two_folds_say_that_there_is_no_interval():
    text = table(folds=2).to_markdown()
    assert "There are 2 folds, and intervals need at least 3." in text
    assert "jackknife" not in text


def test_above_one_is_not_one():
    assert beyond(1.00001, 4) == ">1.0000"
    assert beyond(1.0, 4) == "1.0000"
    assert beyond(0.99999, 4) == ">0.9999"
    assert beyond(math.nan, 4) == "–"


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
    assert (
        "corrected"
        not in overlap({"a": without_folds(fisher(squares)), "b": without_folds(fisher(squares, seed=1))}).to_frame()
    )
    assert len(found.to_frame("parameter")) == 4 * 3


def without_folds(footprint):
    return Footprint(footprint.kind, footprint.tensors, footprint.count, footprint.metadata)


def test_a_saved_table_can_do_all_that_a_fresh_one_can(tmp_path):
    found = table(3)
    found.save(tmp_path / "table")
    assert sorted(path.name for path in (tmp_path / "table").iterdir()) == ["overlap.json", "overlap.safetensors"]
    back = OverlapTable.load(tmp_path / "table")
    assert back.to_json() == found.to_json()
    for by in ("layer", "parameter", 0):
        assert back.to_markdown(by) == found.to_markdown(by)
    for of in ("raw", "corrected", "null", "above_null"):
        for layer in (*found.layers, None):
            assert str(back.estimate(of, "a", "c", layer)) == str(found.estimate(of, "a", "c", layer))
        for parameter in found.terms:
            one, other = (each.estimate(of, "a", "c", parameter=parameter) for each in (back, found))
            assert (one.value, *one.replicates) == (other.value, *other.replicates)
    assert (back.roll_up(0).corrected.by_layer[""] == found.corrected.pooled).all()
    assert (back.null.rows.by_parameter["body.bias"] == found.null.rows.by_parameter["body.bias"]).all()


def test_a_rolled_up_table_comes_back_as_it_was(tmp_path):
    found = table(3).roll_up(0)
    found.save(tmp_path)
    back = OverlapTable.load(str(tmp_path))
    assert (back.names, back.depth, back.layers) == (("a", "b", "c"), 0, ("",))
    assert back.to_markdown() == found.to_markdown()


def test_json_for_other_readers():
    found = table()
    record = json.loads(found.to_json())
    assert record["folds"] == {"count": 8, "splits": splits_of(8).words}
    rows = pd.DataFrame(record["records"]["rows"], columns=record["records"]["columns"])
    rows = rows[(rows.a == "a") & (rows.level == "pooled")].set_index("quantity")
    estimate = found.estimate("corrected", "a", "b")
    one = rows[rows.b == "b"].loc["corrected"]
    assert (one["value"], one["low"], one["high"], one["n"]) == (estimate.value, estimate.low, estimate.high, 8)
    assert rows[rows.b == "b"].loc["null", "null"] in {"entries", "rows", "columns"}
    assert rows.loc["noise_ceiling", "value"] == found.noise_ceiling.pooled[0]


def test_damaged_files_are_refused(tmp_path):
    table().save(tmp_path)
    arrays = tmp_path / "overlap.safetensors"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-8] + b"\1" * 8)
    with pytest.raises(
        IntegrityError, match=r"not the file that overlap.json was written with: compute the table again"
    ):
        OverlapTable.load(tmp_path)
    arrays.unlink()
    with pytest.raises(IntegrityError, match=r"overlap.safetensors cannot be read .*: compute the table again"):
        OverlapTable.load(tmp_path)
    table(3).save(tmp_path)
    other = content(tmp_path / "overlap.json")
    del other["terms"]["scale"]
    (tmp_path / "overlap.json").write_text(json.dumps(sealed(other)))
    with pytest.raises(IntegrityError, match="damaged"):
        OverlapTable.load(tmp_path)


def test_a_table_replaces_the_one_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text("{}")
    table().save(tmp_path)
    plain = overlap({"a": without_folds(fisher(squares)), "b": without_folds(fisher(squares, seed=1))})
    plain.save(tmp_path)
    assert OverlapTable.load(tmp_path).resampled is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overlap.json", "run.json"]

    def full(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr("commonweight.overlaps.table.files.write_whole", full)
    with pytest.raises(OSError, match="no space"):
        table().save(tmp_path)
    with pytest.raises(IntegrityError, match=r"has no overlap.json"):
        OverlapTable.load(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        table().save(tmp_path / "run.json")
