"""Data sets with splits: what is accepted, and what is refused in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import pytest

from commonweight.base import UsageError
from commonweight.data.shortcuts import build_shortcut_data
from commonweight.data.splits import open_source
from commonweight.studies.demo.encoder import make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

ROWS = "label\tsentence\n1\tgood film\n0\tbad film\n"


def folder(path: Path, **files: str) -> str:
    for name, text in files.items():
        (path / f"{name}.tsv").write_text(text)
    return str(path)


def test_a_folder_of_files(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, train=ROWS, dev=ROWS, test=ROWS, other=ROWS))
    assert set(source.splits) == {"train", "validation", "test"}
    assert (source.text, source.label, source.classes) == ("sentence", "label", ("LABEL_0", "LABEL_1"))
    assert source.splits["validation"]["sentence"][:] == ["good film", "bad film"]
    assert list(source.splits["train"]["label"]) == [1, 0]


def test_labels_that_are_names(tmp_path: Path) -> None:
    named = ROWS.replace("1\t", "positive\t").replace("0\t", "negative\t")
    source = open_source(folder(tmp_path, train=named, validation=named))
    assert source.classes == ("negative", "positive")
    assert list(source.splits["train"]["label"]) == [1, 0]


def test_a_saved_data_set(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"))
    assert (source.text, source.classes) == ("text", ("no", "yes"))


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"dev": ROWS}, {}, "no split train"),
        ({}, {}, "neither a saved DatasetDict nor files"),
        ({"train": ROWS, "dev": "label\ttext\n1\tx\n"}, {}, "split validation .* has no column 'sentence'"),
        ({"train": ROWS.replace("0\t", "3\t"), "dev": ROWS}, {}, r"labels of .* must be 0, 1"),
        ({"train": ROWS.replace("0\t", "1\t")}, {}, "must be 0, 1"),
        ({"train": ROWS.replace("1\t", "\t").replace("0\t", "\t")}, {}, "got none at all"),
        ({"train": ROWS, "dev": ROWS.replace("0\t", "bad\t")}, {}, "the same in train and dev; got '1', 'bad', 0, 1"),
        ({"train": ROWS.replace("1\t", "0.5\t")}, {}, "must be class numbers or names"),
        ({"train": ROWS, "dev": ROWS}, {"label_column": "labl"}, "labl"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: dict, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(folder(tmp_path, **files), **options)


def test_two_files_of_one_split(tmp_path: Path) -> None:
    data = folder(tmp_path, train=ROWS)
    (tmp_path / "train.csv").write_text(ROWS.replace("\t", ","))
    with pytest.raises(UsageError, match=r"two files of the split train: train\.csv and train\.tsv"):
        open_source(data)


@pytest.mark.parametrize("data", ["no/such/folder", "data/sst2", "./x", "~/x", "mine.tsv", "here/sst2"])
def test_neither_folder_nor_id(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the Hub was asked"))
    with pytest.raises(UsageError, match="expected a folder with train and dev files"):
        open_source(data)


def test_a_folder_that_was_misspelled(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    with pytest.raises(UsageError, match=r"did you mean '.*/reviews'\?"):
        open_source(str(tmp_path / "review"))


def rows_of(labels: list) -> datasets.Dataset:
    return datasets.Dataset.from_dict({
        "text": [f"film {number} was seen" for number in range(len(labels))],
        "label": labels,
    })


@pytest.mark.parametrize(
    ("train", "dev", "wanted"),
    [
        ([1, None, 0], [1, 0], ([1, None, 0], [1, 0])),
        (["no", "yes", None], ["yes", "often"], ([0, 2, None], [2, 1])),
        ([0, 1, 0], [2, 0], ([0, 1, 0], [2, 0])),
        ([0, -1, 1], [-1, 0], ([0, None, 1], [None, 0])),
        ([True, False], [None, True], ([1, 0], [None, 1])),
    ],
)
def test_labels_that_are_missing_or_only_in_dev(tmp_path: Path, train: list, dev: list, wanted: tuple) -> None:
    datasets.DatasetDict({"train": rows_of(train), "validation": rows_of(dev)}).save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"))
    found = tuple(source.splits[name]["label"][:] for name in ("train", "validation"))
    assert found == wanted
    assert all(rows.features["label"].names == list(source.classes) for rows in source.splits.values())
    assert source.splits["train"].column_names == ["text", "label"]


@pytest.mark.parametrize("labels", [["?"] * 4, [None] * 4, [-1] * 4])
def test_a_test_split_without_labels(tmp_path: Path, labels: list) -> None:
    train = rows_of(["no", "yes", None] * 20)
    datasets.DatasetDict({"train": train, "test": rows_of(labels)}).save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"))
    assert source.splits["test"]["label"][:] == [None] * 4
    data = build_shortcut_data(source.splits, "op", make_tokenizer(), text_column="text", label_column="label")
    assert len([each for each in data.dropped if each.split == "train"]) == 20


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    splits = {"train": rows_of(["no", "yes"]), "validation": rows_of(["no", "yes"])}
    for name, names in (("train", ["no", "yes"]), ("validation", ["yes", "no"])):
        splits[name] = splits[name].cast_column("label", datasets.ClassLabel(names=names))
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert open_source(str(tmp_path / "saved")).splits["validation"]["label"][:] == [0, 1]
