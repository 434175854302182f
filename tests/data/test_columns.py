"""Columns and labels: obvious defaults, the model's own numbering, and every way a value can be wrong."""

import math

import datasets
import numpy as np
import pytest

from commonweight.base import UsageError
from commonweight.data.columns import class_labels, label_column, numbers, text_columns, texts
from commonweight.data.table import Table


def table(rows: datasets.Dataset | dict) -> Table:
    data = rows if isinstance(rows, datasets.Dataset) else datasets.Dataset.from_dict(rows)
    return Table("mine", data, range(10, 10 + len(data)), {})


def test_obvious_columns_are_found():
    found = table({"sentence": ["a"], "label": [0], "score": [0.5]})
    assert label_column(found) == "label"
    assert text_columns(found, label="label") == ("sentence",)
    assert text_columns(table({"text": ["a"], "title": ["b"]})) == ("text",)
    assert text_columns(table({"text": ["a"], "label": ["yes"]}), label="label") == ("text",)
    assert text_columns(table({"q": ["a"], "p": ["b"]}), ["q", "p"]) == ("q", "p")


def test_other_columns_must_be_named():
    found = table({"premise": ["a"], "hypothesis": ["b"], "gold": [0]})
    with pytest.raises(UsageError, match=r"2 columns of strings \('premise', 'hypothesis'\).*text_column"):
        text_columns(found)
    with pytest.raises(UsageError, match=r"text_column 'premis'.*did you mean 'premise'"):
        text_columns(found, ["premis"])
    with pytest.raises(UsageError, match=r"neither 'label' nor 'labels'.*'gold'"):
        label_column(found)
    with pytest.raises(UsageError, match=r"label_column 'glod'.*did you mean 'gold'"):
        label_column(found, "glod")
    with pytest.raises(UsageError, match="once, or twice"):
        text_columns(found, ["a", "b", "c"])
    with pytest.raises(UsageError, match="both 'label' and 'labels'"):
        label_column(table({"label": [0], "labels": [0]}))


def test_a_missing_text_names_its_row():
    assert texts(table({"a": ["x", "y"], "b": ["u", "v"]}), ("a", "b")) == [("x", "u"), ("y", "v")]
    with pytest.raises(UsageError, match="row 11 of mine has nothing in column 'text'"):
        texts(table({"text": ["a", None]}), ("text",))
    with pytest.raises(UsageError, match="row 10 of mine has 5 in column 'n', expected a string"):
        texts(table({"n": [5]}), ("n",))


def test_whole_numbers_are_taken_as_they_are():
    assert class_labels(table({"y": [0, 2, 1]}), "y", classes=3) == [0, 2, 1]
    assert class_labels(table({"y": [0.0, 1.0]}), "y", classes=2) == [0, 1]
    assert class_labels(table({"y": ["0", "1"]}), "y", classes=2) == [0, 1]
    assert class_labels(table({"y": [False, True]}), "y", classes=2) == [0, 1]


def test_names_go_through_the_model():
    ids = {"POSITIVE": 0, "NEGATIVE": 1}
    assert class_labels(table({"y": ["negative", "Positive"]}), "y", classes=2, label2id=ids) == [1, 0]


def test_data_that_number_the_same_classes_otherwise_are_renumbered():
    features = datasets.Features({"y": datasets.ClassLabel(names=["negative", "positive"])})
    named = datasets.Dataset.from_dict({"y": [0, 1]}, features=features)
    assert class_labels(table(named), "y", classes=2, label2id={"positive": 0, "negative": 1}) == [1, 0]
    assert class_labels(table(named), "y", classes=2, label2id={"LABEL_0": 0, "LABEL_1": 1}) == [0, 1]


def test_names_the_model_does_not_know_are_refused_unless_its_own_say_nothing():
    features = datasets.Features({"y": datasets.ClassLabel(names=["neg", "pos"])})
    named = datasets.Dataset.from_dict({"y": [0, 1]}, features=features)
    with pytest.raises(UsageError, match=r"has the classes 'neg', 'pos', and the model knows 'negative', 'pos'"):
        class_labels(table(named), "y", classes=2, label2id={"negative": 1, "pos": 0})
    assert class_labels(table(named), "y", classes=2) == [0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, None], "row 11 of mine has nothing in column 'y', expected a class"),
        ([0.0, math.nan], "row 11 of mine has nan"),
        ([0.0, math.inf], "row 11 of mine has inf"),
        ([0, 2], r"row 11 of mine has 2 in column 'y', expected a class in 0\.\.1"),
        ([0, -1], "choose another split"),
        ([0.5, 1.0], "expected a whole number; for regression"),
        (["good", "bad"], "'LABEL_0', 'LABEL_1'. Write numbers"),
    ],
)
def test_impossible_labels_name_their_row(values, message):
    with pytest.raises(UsageError, match=message):
        class_labels(table({"y": values}), "y", classes=2, label2id={"LABEL_0": 0, "LABEL_1": 1})


def test_numbers_may_be_nested_and_must_be_finite():
    assert numbers(table({"x": [[1.0, 2.0], [3.0, 4.0]]}), "x") == [[1.0, 2.0], [3.0, 4.0]]
    for bad, shown in ((math.nan, "nan"), (math.inf, "inf"), (None, "nothing")):
        with pytest.raises(UsageError, match=f"row 11 of mine has {shown}"):
            numbers(table({"x": [[1.0], [bad]]}), "x")
    with pytest.raises(UsageError, match="row 10 of mine has '1'"):
        numbers(table({"x": ["1"]}), "x")


def test_images_become_channels_first_from_0_to_1():
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 1] = [255, 0, 51]
    features = datasets.Features({"image": datasets.Image()})
    found = numbers(table(datasets.Dataset.from_dict({"image": [pixels]}, features=features)), "image")
    assert found[0].shape == (3, 4, 6)
    assert np.allclose(found[0][:, 0, 1], [1.0, 0.0, 0.2])
