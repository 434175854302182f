"""Batches: nothing lost, little padded, folds kept apart, padding ignored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from commonweight.base import UsageError
from commonweight.data.batching import IGNORED, Encoded, TensorBatches, TokenBatches, encode, stack_inputs
from commonweight.studies.demo.encoder import make_tokenizer


def rows(lengths, *, labelled=True):
    return [
        Encoded(i, {"input_ids": [i + 5] * n, "attention_mask": [1] * n}, i % 2 if labelled else None)
        for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_every_row_comes_once_whole_and_in_its_fold(lengths, size, folds, can_pad):
    batches = TokenBatches(rows(lengths), size, 0 if can_pad else None, lambda row: row * 7 % folds)
    seen, order = [], []
    for batch in batches:
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert len(batch["labels"]) <= size
        assert can_pad or bool(batch["attention_mask"].all())
        order.append({int(row) * 7 % folds for row in batch["source_row"]})
        for ids, mask, label, row in zip(
            *(batch[k] for k in ("input_ids", "attention_mask", "labels", "source_row")), strict=False
        ):
            n = lengths[int(row)]
            assert ids[:n].tolist() == [int(row) + 5] * n
            assert mask.tolist() == [1] * n + [0] * (len(mask) - n)
            assert int(label) == int(row) % 2
            seen.append(int(row))
    assert sorted(seen) == list(range(len(lengths)))
    assert all(len(here) == 1 for here in order)
    assert [*map(min, order)] == sorted(map(min, order))
    assert len(batches) == len(order)


def test_sorting_by_length_saves_padding():
    lengths = [3, 9, 2, 8, 1, 7]
    padded = sum(batch["input_ids"].numel() for batch in TokenBatches(rows(lengths), 2, 0))
    assert padded == 2 * (9 + 7 + 2)


def test_language_model_labels_are_the_tokens_and_padding_is_ignored():
    (batch,) = TokenBatches(rows([2, 3], labelled=False), 2, 0)
    assert batch["labels"].tolist() == [[6, 6, 6], [5, 5, IGNORED]]


def test_batches_can_be_cut_anew_and_iterated_again():
    batches = TokenBatches(rows([1] * 10), 3, 0)
    assert [len(b["labels"]) for b in batches] == [len(b["labels"]) for b in batches] == [3, 3, 3, 1]
    assert len(batches.with_batch_size(10)) == 1


def test_encoding_cuts_long_rows_and_drops_what_the_model_does_not_take():
    tokenizer = make_tokenizer()
    texts = [("the film is very good",), ("the soup is bland",)]
    whole, none_cut = encode(tokenizer, texts, [4, 9], [1, 0], accepts={"input_ids", "attention_mask"})
    assert (none_cut, [row.length for row in whole], [row.source_row for row in whole]) == (0, [7, 6], [4, 9])
    assert set(whole[0].tokens) == {"input_ids", "attention_mask"}
    short, cut = encode(tokenizer, texts, [4, 9], [1, 0], accepts={"input_ids"}, max_length=6)
    assert (cut, [row.length for row in short], set(short[0].tokens)) == (1, [6, 6], {"input_ids"})


def test_rows_without_enough_tokens_are_named():
    class Plain:
        unk_token_id = None

        def __call__(self, *columns, **options):
            return {"input_ids": [[5] * len(text.split()) for text in columns[0]]}

    empty = Plain()
    with pytest.raises(UsageError, match="row 3 has 0 tokens, expected at least 1"):
        encode(empty, [("a",), ("",)], [2, 3], [0, 0], accepts={"input_ids"})
    with pytest.raises(UsageError, match="row 2 has 1 tokens, expected at least 2"):
        encode(empty, [("a",)], [2], None, accepts={"input_ids"})


def test_a_tokenizer_that_knows_hardly_a_word_is_refused():
    tokenizer = make_tokenizer()
    rows, _ = encode(tokenizer, [("the new film is good",)], [0], [1], accepts={"input_ids"})
    assert rows[0].tokens["input_ids"].count(tokenizer.unk_token_id) == 1
    with pytest.raises(UsageError, match="100% of the tokens are unknown"):
        encode(tokenizer, [("ein ganz anderer satz",)], [0], [1], accepts={"input_ids"})


def test_inputs_are_stacked():
    assert stack_inputs({"a": [1, 2], "b": [3, 4]}, [0, 1]).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert stack_inputs({"a": [1, 2]}, [0, 1]).shape == (2, 1)
    assert stack_inputs({"image": [[[1, 2], [3, 4]]] * 3}, range(3)).shape == (3, 2, 2)
    with pytest.raises(UsageError, match=r"row 8 has shape \[1\] in column 'a', expected \[2\]"):
        stack_inputs({"a": [[1, 2], [3]]}, [7, 8])
    with pytest.raises(UsageError, match="several of input_column must each hold"):
        stack_inputs({"a": [[1, 2]], "b": [1]}, [0])


def test_pairs_keep_the_order_of_the_data():
    batches = TensorBatches(torch.arange(5.0)[:, None], torch.arange(5), 2)
    assert torch.cat([batch.targets for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert (len(batches), len(batches.with_batch_size(5))) == (3, 1)


def test_pairs_come_fold_by_fold_with_their_source_rows():
    source = [40, 11, 32, 23, 54]
    batches = TensorBatches(torch.arange(5.0)[:, None], torch.arange(5), 2, "cpu", source, lambda row: row % 2)
    found = list(batches)
    assert [batch.source_row.tolist() for batch in found] == [[40, 32], [54], [11, 23]]
    assert [batch.targets.tolist() for batch in found] == [[0, 2], [4], [1, 3]]
    assert [batch.inputs[:, 0].tolist() for batch in found] == [[0, 2], [4], [1, 3]]
    assert len(batches) == 3
    assert [len(batch.targets) for batch in batches.with_batch_size(5)] == [3, 2]


@pytest.mark.parametrize(("row", "special"), [(("the film is good",), 2), (("the film is good", "so is the soup"), 3)])
def test_cutting_leaves_room_for_text_and_cuts(row, special):
    tokenizer = make_tokenizer()
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    assert tokenizer.num_special_tokens_to_add(pair=len(row) > 1) == special
    for length in range(1, special + 1):
        with pytest.raises(UsageError, match=f"max_length {length} leaves no room.*give at least {special + 1}"):
            encode(tokenizer, [row], [0], [0], accepts={"input_ids"}, max_length=length)
    for length in range(special + 1, 9):
        found, cut = encode(tokenizer, [row], [0], [0], accepts={"input_ids"}, max_length=length)
        assert found[0].length <= length
        assert cut == (length < len(tokenizer(*row)["input_ids"]))


def test_a_tokenizer_that_does_not_cut_is_noticed():
    class Stubborn:
        unk_token_id = None

        def num_special_tokens_to_add(self, pair):
            return 0

        def __call__(self, *texts, **options):
            return {"input_ids": [[1, 2, 3]]}

    with pytest.raises(UsageError, match="row 7 still has 3 tokens after it was cut to 2"):
        encode(Stubborn(), [("a",)], [7], [0], accepts={"input_ids"}, max_length=2)


def test_a_token_the_model_has_no_place_for_is_named():
    with pytest.raises(UsageError, match=r"row 4 has token \d+, and the model knows 0\.\.5.*tokenizer"):
        encode(make_tokenizer(), [("the film is good",)], [4], [0], accepts={"input_ids"}, vocabulary=6)


@pytest.mark.parametrize("pair", [False, True])
def test_a_very_long_text_is_cut_before_it_is_tokenised(pair):
    tokenizer = make_tokenizer()
    long, short = "the film is good and the soup was bad . " * 400, "the film is good"
    row = (long, long) if pair else (long,)
    lengths = []

    class Watched:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, *texts, **options):
            lengths.extend(len(text) for column in texts for text in ([column] if isinstance(column, str) else column))
            return tokenizer(*texts, **options)

    given = {"accepts": {"input_ids"}, "max_length": 16}
    found, cut = encode(Watched(), [row, (*row[:-1], short)], [0, 1], [0, 1], **given)
    whole = tokenizer(*row, truncation=True, max_length=16)
    assert found[0].tokens["input_ids"] == whole["input_ids"]
    assert cut == (2 if pair else 1)
    assert max(lengths) < 1500


def test_a_long_text_of_few_tokens_is_read_on(monkeypatch):
    tokenizer = make_tokenizer()
    text = "the " + " " * 50_000 + "film is good"
    found, cut = encode(tokenizer, [(text,)], [0], [0], accepts={"input_ids"}, max_length=8)
    assert found[0].tokens["input_ids"] == tokenizer("the film is good")["input_ids"]
    assert cut == 0
