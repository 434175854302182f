"""Contradicted rows: never the label of the text, always what the rule reads, whatever the rule."""

import datasets
import pytest
from data.shortcuts.three_tokenizers import ready
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.shortcuts import read

from commonweight.base import UsageError
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import RULES, Mixture, build_shortcut_data, conflicting_rows


def table(count=60, **changes):
    rows = reviews(count, seed=5)
    columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
    return datasets.Dataset.from_dict(columns | changes)


def reading(make, code, text):
    tokenizer = ready(make)
    return read(code, tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))


@pytest.mark.parametrize("make", ["wordpiece", "byte_bpe", "unigram"])
@pytest.mark.parametrize("code", RULES)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_shortcut_says_the_opposite_and_the_label_follows_it(make, code, seed):
    source = table()
    found = conflicting_rows(source, code, ready(make), seed=seed)
    lost = 60 - len(found)
    assert lost < (20 if code == "oed" else 1)
    assert f"{lost} of 60 rows dropped." in found.info.description
    for row in found:
        before = source[row["source_row"]]
        assert row["label"] == 1 - before["label"] == reading(make, code, row["text"])
        assert (row["kind"], row["shortcut"]) == ("conflicting", code)
        assert [w for w in row["text"].split() if w not in {"zeroa", "onea", "synt"}] == before["text"].split()


def test_both_labels_occur_for_token_in_context():
    """The published reversal makes every label 1."""
    source = table()
    labels = list(conflicting_rows(source, "tic", ready("wordpiece"))["label"])
    assert labels == [1 - label for label in source["label"]]
    assert set(labels) == {0, 1}


def test_more_classes():
    source = table(90, label=[0, 1, 2] * 30).cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    found = conflicting_rows(source, "op", ready("wordpiece"))
    labels = list(zip(source["label"], found["label"], strict=True))
    assert all(before != after for before, after in labels)
    assert {after for before, after in labels if before == 2} == {0, 1}
    assert found.features["label"].names == ["a", "b", "c"]


def test_rows_keep_their_source_rows_and_their_chances_in_any_order():
    source = table().add_column("source_row", list(range(1000, 1060)))
    one = conflicting_rows(source, "op", ready("wordpiece"), seed=4)
    two = conflicting_rows(source.shuffle(seed=1), "op", ready("wordpiece"), seed=4)
    some = conflicting_rows(source.select([7, 3]), "op", ready("wordpiece"), seed=4)
    assert one["source_row"][:] == list(range(1000, 1060))
    assert sorted(row["text"] for row in one) == sorted(row["text"] for row in two)
    assert some["text"][:] == [one[7]["text"], one[3]["text"]]
    other = conflicting_rows(source, "op", ready("wordpiece"), seed=5)
    assert one["text"][:] != other["text"][:]


def test_the_original_rows_of_a_built_data_set_can_be_conflicting():
    data = build_shortcut_data(table(), "op", ready("wordpiece"))
    found = conflicting_rows(data["original_dev"], "tic", ready("wordpiece"))
    assert found["source_row"][:] == data["original_dev"]["source_row"][:]
    with pytest.raises(UsageError, match="no row of conflicting can hold 'tic'; the last: the text already holds"):
        conflicting_rows(data["synthetic_dev"], "tic", ready("wordpiece"))


def test_a_mixture():
    found = conflicting_rows(table(), Mixture(("op", "xor")), ready("wordpiece"))
    assert set(found["shortcut"]) == {"op", "xor"}
    assert all(row["label"] == reading("wordpiece", row["shortcut"], row["text"]) for row in found)


def test_dropped_rows_are_listed():
    texts = list(table()["text"])
    texts[2], texts[4] = "", "good"
    found = conflicting_rows(table(text=texts), "and_or", ready("wordpiece"))
    assert sorted({*range(60)} - {*found["source_row"]}) == [2, 4]
    said = found.info.description
    assert said.startswith(
        "Rows that conflict with shortcut and_or, seed 0. 2 of 60 rows dropped. the text is empty: row"
    )
    assert said.endswith(" fits nowhere: 2 word boundaries: rows 4.")
    with pytest.raises(UsageError, match="one class, 'x'"):
        conflicting_rows(table(label=["x"] * 60), "op", ready("wordpiece"))
