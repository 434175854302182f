"""Saved data come back as they were, with their record; damage is noticed."""

import json

import datasets
import pytest
from data.shortcuts.three_tokenizers import ready

from commonweight.base import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import ShortcutData, build_shortcut_data
from commonweight.data.table import open_table


@pytest.fixture(scope="module")
def data():
    rows = reviews(80)
    rows[4] = rows[4] | {"text": ""}
    source = datasets.Dataset.from_dict({
        "text": [row["text"] for row in rows],
        "label": [row["label"] for row in rows],
    })
    return build_shortcut_data(source, "op", ready("wordpiece"))


def test_round_trip(data, tmp_path):
    folder = data.save(tmp_path / "new" / "op")
    found = ShortcutData.load(folder)
    assert found.record == data.record
    assert found.dropped == data.dropped != ()
    assert {split: found[split].to_list() for split in found.splits} == {
        split: data[split].to_list() for split in data.splits
    }
    assert found["train"].features == data["train"].features
    assert found["train"].info.description == data["train"].info.description
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["op"]
    assert open_table(str(folder), split="synthetic_dev").columns == ("text", "label", "source_row", "kind", "shortcut")
    assert datasets.load_from_disk(str(folder))["original_dev"].to_list() == data["original_dev"].to_list()


def test_the_record_says_what_was_asked_for(data):
    assert data.record["format"] == "commonweight-shortcut-data"
    assert data.record["settings"] == {
        "shortcut": "op",
        "rules": [{"code": "op", "name": "ordered pair", "weight": 1.0, "labels": {"0": 0.5, "1": 0.5}, "chance": 0.5}],
        "chance": 0.5,
        "markers": {"zero": "zeroa", "one": "onea", "context": "synt"},
        "seed": 0,
        "synthetic": 0.2,
        "distractors": 0.25,
        "max_length": None,
        "rows": None,
        "text_column": "text",
        "label_column": "label",
        "classes": [],
    }
    train = data.record["splits"]["train"]
    assert sum(train["labels"].values()) == train["rows"] == len(data["train"])
    assert sum(sum(labels.values()) for labels in train["kinds"].values()) == train["rows"]


def test_nothing_is_overwritten(data, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    data.save(folder)
    with pytest.raises(UsageError, match="exists and is not empty"):
        data.save(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="exists and is not empty"):
        data.save(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: "{", "is not JSON"),
        (lambda record: json.dumps(record), "is not as it was written"),
        (lambda record: json.dumps(record | {"format": "x"}), "is not a commonweight-shortcut-data record"),
        (
            lambda record: json.dumps(record | {"version": 1}),
            "has format version 1, this release reads version 3: .*, or build the data again",
        ),
        (lambda record: json.dumps({"format": record["format"], "version": 3}), "lacks dropped, origin, settings, "),
        (
            lambda record: json.dumps(sealed(record | {"splits": {"train": {"rows": 3}}})),
            "says otherwise; build it again",
        ),
    ],
)
def test_damage_is_noticed(data, tmp_path, change, message):
    folder = data.save(tmp_path / "op")
    (folder / "shortcut.json").write_text(change(dict(data.record)))
    with pytest.raises(IntegrityError, match=message):
        ShortcutData.load(folder)


def test_what_is_no_shortcut_data(data, tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        ShortcutData.load(tmp_path / "nowhere")
    data.splits.save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(IntegrityError, match=r"has no shortcut\.json"):
        ShortcutData.load(tmp_path / "plain")
    folder = data.save(tmp_path / "op")
    (folder / "dataset_dict.json").unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        ShortcutData.load(folder)
