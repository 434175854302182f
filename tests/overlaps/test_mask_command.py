"""``commonweight overlap`` on footprints of a supermask network."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from footprints.masked import trained

from commonweight.cli.main import run
from commonweight.footprints.of_masks import activity_footprint, supermask_footprint


@pytest.fixture
def call(capfd):
    def of(folders, *options):
        capfd.readouterr()
        code = run(["overlap", *map(str, folders), *options])
        captured = capfd.readouterr()
        return code, " ".join(captured.out.split()), captured

    return of


def saved(tmp_path, make, tasks="abc"):
    return [make(task).save(tmp_path / task) for task in tasks]


def test_masks(tmp_path, call):
    folders = saved(tmp_path, lambda task: supermask_footprint(trained(), task))
    code, out, _ = call(folders[:2], "--format", "markdown")
    assert code == 0
    assert "| layer | overlap | chance | corrected | density, a | density, b |" in out
    assert "independent, seed 0, task 1" in out
    assert "All footprints are of the same weights." in out
    for form in ("table", "markdown"):
        code, out, _ = call(folders, "--format", form)
        assert code == 0
        assert "The largest overlap beyond chance is" in " ".join(out.split())
    assert "supermask network, task a" in call(folders, "--verbose")[1]


def test_masks_as_csv_and_json(tmp_path, call):
    folders = saved(tmp_path, lambda task: supermask_footprint(trained(), task))
    _, _, captured = call(folders, "--format", "csv", "--by", "parameter")
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert len(rows) == 9
    assert all(float(row["chance"]) > 0 for row in rows)
    _, _, captured = call(folders, "--format", "json")
    record = json.loads(captured.out)
    assert record["masks"]["starts"]["b"] == "independent, seed 0, task 1"
    rows = pd.DataFrame(record["records"]["rows"], columns=record["records"]["columns"])
    corrected = rows[(rows.quantity == "corrected") & (rows.level == "pooled")].set_index(["a", "b"])["value"]
    assert np.isnan(corrected["a", "a"])
    assert np.isfinite(corrected["a", "b"])


def test_masks_of_a_shared_start(tmp_path, call):
    code, out, _ = call(
        saved(tmp_path, lambda task: supermask_footprint(trained("shared"), task)), "--format", "markdown"
    )
    assert code == 0
    assert "started from the same draw" in out
    assert "flipped=True" in out


def test_activities(tmp_path, call):
    code, out, _ = call(saved(tmp_path, lambda task: activity_footprint(trained(), task)), "--format", "markdown")
    assert code == 0
    assert "Cosine similarity of a, b and c" in out
    assert "examples" not in out  # nobody counted


def test_a_mask_and_an_activity_are_not_compared(tmp_path, call):
    mask = supermask_footprint(trained(), "a").save(tmp_path / "mask")
    activity = activity_footprint(trained(), "a").save(tmp_path / "activity")
    code, _, captured = call([mask, activity])
    assert code == 3
    assert "different kinds" in captured.err
