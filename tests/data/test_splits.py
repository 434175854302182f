"""Data sets with splits: what is accepted, and what is refused in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import pytest

from commonweight import UsageError
from commonweight.data.splits import open_source

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
        ({"train": ROWS.replace("0\t", "1\t"), "dev": ROWS}, {}, "must be 0, 1"),
        ({"train": ROWS, "dev": ROWS}, {"label_column": "labl"}, "labl"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: dict, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(folder(tmp_path, **files), **options)


def test_neither_folder_nor_id() -> None:
    with pytest.raises(UsageError, match="expected a folder with train and dev files"):
        open_source("no/such/folder")
