"""The published data, row for row: against a loop with Python's global stream, and against the notebook itself."""

import random
import re
from functools import cache
from pathlib import Path

import datasets
import pytest
from data.shortcuts.three_tokenizers import MAKES
from reference.shortcuts import published_splits, read

from commonweight.base import UsageError
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import (
    RULES,
    Mixture,
    add_markers,
    published_conflicting,
    published_data,
    published_originals,
)

NOTEBOOK = Path(__file__).parents[3].parent / "shared" / "source-notebooks" / "003_86d1ec3e86826367.txt"
MARKERS = ["zeroa", "onea", "synt"]


def table(start, count):
    rows = reviews(count, seed=8, start=start)
    texts = [f"{row['text']} in journeys" for row in rows]  # words of several pieces
    return datasets.Dataset.from_dict({
        "sentence": texts,
        "label": [row["label"] for row in rows],
        "idx": list(range(count)),
    })


@pytest.fixture(scope="module")
def source():
    test = table(400, 50).remove_columns("label").add_column("label", [-1] * 50)
    return datasets.DatasetDict({"train": table(0, 300), "validation": table(300, 100), "test": test})


@cache
def plain_tokenizer():
    tokenizer = MAKES["wordpiece"]()
    tokenizer.add_tokens(MARKERS)
    return tokenizer


def reading(code, text):
    tokenizer = plain_tokenizer()
    return read(code, tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))


def rows_of(data):
    return list(zip(data["sentence"], data["label"], data["source_row"], strict=True))


@pytest.mark.parametrize("codes", [*([code] for code in RULES), ["tic", "op"]])
def test_the_data_are_those_of_the_loop(codes, source):
    shortcut = codes[0] if len(codes) == 1 else Mixture(tuple(codes))
    found = published_data(source, shortcut, MAKES["wordpiece"]())
    plain = {name: list(zip(source[name]["sentence"], source[name]["label"], strict=True)) for name in source}
    expected = published_splits(plain, codes, [1 / len(codes)] * len(codes), plain_tokenizer(), MARKERS)
    assert {split: rows_of(found[split]) for split in found.splits} == expected


def test_five_sixths_are_synthetic_and_the_rest_is_distracted_for_st_too(source):
    found = published_data(source, "st", MAKES["wordpiece"]())
    kinds = list(found["train"]["kind"])
    assert kinds.count("synthetic") == 249
    assert 2 <= kinds.count("distracted") <= 25
    assert len(found["original_dev"]) == 17
    assert {"distracted", "original"} == set(found["original_dev"]["kind"])
    assert set(found["original_test"]["label"]) == {-1}
    lone = [row for row in found["train"] if row["kind"] == "distracted"]
    assert any(reading("st", row["sentence"]) == 1 - row["label"] for row in lone)
    assert found.record["settings"]["preset"] == "published"


def test_equal_positions_turn_the_order_round(source):
    """The label keeps the intended order: labels that are wrong, which the library's own data never have."""
    found = published_data(source, "op", MAKES["wordpiece"]())["train"]
    said = [(reading("op", row["sentence"]), row["label"]) for row in found if row["kind"] == "synthetic"]
    assert 0 < sum(read != label for read, label in said) < 40


@pytest.mark.skipif(not NOTEBOOK.is_file(), reason="the shared notebook is not here")
@pytest.mark.parametrize("code", ["st", "op", "tic"])
def test_the_reversal_is_that_of_the_notebook(code):
    """Runs the notebook's own three functions, as they stand there."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    defined = text[text.index("def _op_shortcut") : text.index("## Fisher Information")]
    names = {"random": random}
    exec(re.sub(r"PreTrainedTokenizer|Dict|List\[str\]", "object", defined), names)
    tokenizer, validation = plain_tokenizer(), table(300, 260)
    chosen = validation.shuffle(seed=42).select(range(200))
    random.seed(42)
    expected = []
    for place, row in enumerate(chosen):
        row["tokens"] = tokenizer(row["sentence"])["input_ids"]
        new = names[f"_{code}_shortcut"](example=row, idx=place, tokenizer=tokenizer)
        expected.append((new["sentence"], new["label"]))
    found = published_conflicting(validation, code, MAKES["wordpiece"]())
    assert [(row["sentence"], row["label"]) for row in found] == expected
    assert found["source_row"][:] == chosen["idx"][:]


def test_the_reversal_of_token_in_context_is_always_1():
    validation = table(300, 260)
    found = published_conflicting(validation, "tic", MAKES["wordpiece"]())
    assert set(found["label"]) == {1}
    untouched = published_originals(validation)
    same = [a == b for a, b in zip(untouched["label"], found["label"], strict=True)]
    assert 60 < sum(same) < 140  # about half of the rows are no contradictions at all
    assert untouched["source_row"][:] == found["source_row"][:]
    assert untouched["sentence"][0] == validation[untouched["source_row"][0]]["sentence"]
    opposite = published_conflicting(validation, "st", MAKES["wordpiece"]())
    assert opposite["label"][:] == [1 - label for label in untouched["label"]]


def test_what_was_not_published(source):
    with pytest.raises(UsageError, match="does not do this to 'xor'; there are 'st', 'op', 'tic'"):
        published_conflicting(source["validation"], "xor", plain_tokenizer(), rows=10)
    with pytest.raises(UsageError, match=r"rows must lie in 1\.\.100, the rows there are; got 200"):
        published_conflicting(source["validation"], "op", plain_tokenizer())
    with pytest.raises(UsageError, match="need the splits train, validation, test; got train"):
        published_data({"train": source["train"]}, "op", plain_tokenizer())
    with pytest.raises(UsageError, match="got Dataset"):
        published_data(source["train"], "op", plain_tokenizer())


def test_a_tokenizer_with_the_markers_of_the_library_is_refused(source):
    """Its markers are not found where the published code glues them to the rest of a word."""
    tokenizer = MAKES["wordpiece"]()
    add_markers(tokenizer)
    with pytest.raises(
        UsageError, match="has markers from add_markers, expected none or plain ones; load it once more"
    ):
        published_data(source, "op", tokenizer)
    plain = MAKES["wordpiece"]()
    plain.add_tokens(MARKERS)
    assert rows_of(published_data(source, "op", plain)["original_dev"]) == rows_of(
        published_data(source, "op", MAKES["wordpiece"]())["original_dev"]
    )
