"""Digests of rows: the same for the same content in any batch and beside any padding, and for nothing else."""

from __future__ import annotations

import hashlib
import struct

import pytest
import torch
from diagonal_fisher.small import examples, in_batches, small_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

import commonweight
from commonweight import Footprint
from commonweight.diagonal_fisher.batch import BatchReader
from commonweight.diagonal_fisher.row_digest import TILE, row_digests

IDS = [[5, 6, 7], [5, 6], [8, 9, 5, 6], [5], [0, 5], [5, 0], [6, 5]]


def digests(raw):
    return row_digests(BatchReader().read(raw)).tolist()


def tokens(which, width, *, left=False, junk=0, labels=None):
    """Rows of tokens, padded on either side with anything."""
    ids, mask = torch.full((len(which), width), junk), torch.zeros(len(which), width, dtype=torch.long)
    per_token = torch.full((len(which), width), -100)
    for i, row in enumerate(which):
        n = len(IDS[row])
        here = slice(width - n, width) if left else slice(0, n)
        ids[i, here], mask[i, here], per_token[i, here] = tensor(IDS[row]), 1, tensor(IDS[row])
    labels = per_token if labels is None else tensor([labels[row] for row in which])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(len(IDS))), st.integers(4, 9), st.booleans(), st.integers(0, 9), st.booleans())
def test_padding_and_neighbours_do_not_matter(order, width, left, junk, per_token):
    labels = None if per_token else [0, 1, 0, 1, 0, 1, 0]
    expected = digests(tokens(range(len(IDS)), 4, labels=labels))
    assert len(set(expected)) == len(IDS)
    found = digests(tokens(order, width, left=left, junk=junk, labels=labels))
    assert found == [expected[row] for row in order]
    for row in order:
        assert digests(tokens([row], width, left=left, junk=junk, labels=labels)) == [expected[row]]


def test_embedded_tokens_and_decoders_have_masks_of_their_own():
    def batch(width, decoder_width, junk):
        mask, other = torch.arange(width) < tensor([[2], [3]]), torch.arange(decoder_width) < tensor([[1], [4]])
        generator = torch.Generator().manual_seed(0)
        embedded = torch.full((2, width, 5), junk)
        embedded[:, :3] = torch.randn(2, 3, 5, generator=generator)
        embedded = embedded.where(mask[..., None], junk)
        ids = torch.where(other, torch.arange(decoder_width) + 3, int(junk))
        return {
            "inputs_embeds": embedded, "attention_mask": mask,
            "decoder_input_ids": ids, "decoder_attention_mask": other.long(),
        }  # fmt: skip

    one = digests(batch(3, 4, 0.0))
    assert one == digests(batch(6, 6, 7.0)) == digests(batch(4, 9, 1.0))
    assert one[0] != one[1]
    changed = batch(3, 4, 0.0)
    changed["inputs_embeds"][0, 1, 4] += 1e-3
    assert [a == b for a, b in zip(digests(changed), one, strict=True)] == [False, True]
    changed = batch(3, 4, 0.0)
    changed["decoder_input_ids"][1, 3] += 1
    assert [a == b for a, b in zip(digests(changed), one, strict=True)] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool, torch.long])
@pytest.mark.parametrize("width", [1, 7, 16])
def test_every_single_entry_counts(dtype, width):
    """Entries of 0 and 1 differ in few bits, and for floats in the high ones only."""
    rows = torch.cat([torch.zeros(1, width), torch.eye(width), 1 - torch.eye(width)]).unique(dim=0).to(dtype)
    y = torch.zeros(len(rows), dtype=torch.long)
    assert len(set(digests((rows, y)))) == len(rows)
    assert len(set(digests((rows[:1].expand(3, width), torch.arange(3))))) == 3  # the labels count too


def test_no_two_of_many_rows_of_bits_are_taken_for_one():
    rows = torch.randint(2, (20000, 64), generator=torch.Generator().manual_seed(0)).float().unique(dim=0)
    for values in (rows, -1 + 2 * rows, rows.double()):
        assert len(set(digests((values, torch.zeros(len(rows)))))) == len(rows)


def test_where_a_tensor_stands_matters_and_the_source_row_does_not():
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    label = torch.zeros(4, dtype=torch.long)
    one = digests({"x": x, "y": y, "labels": label})
    assert one == digests({"y": y, "x": x, "labels": label, "source_row": [9, 8, 7, 6]})
    assert not set(one) & set(digests({"x": y, "y": x, "labels": label}))
    assert one == digests({"x": x, "y": y, "labels": label, "scale": tensor(2.0), "words": torch.ones(3)})
    sparse = {"x": x.to_sparse(), "y": y, "labels": label}
    assert one == digests(sparse)


def test_rows_may_lie_anywhere_in_memory():
    """Rows of 12 bytes at odd addresses, columns of wider rows, every second row, one row at a time."""
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    expected = digests((x, y))
    flat, wide = torch.zeros(19), torch.zeros(12, 5)
    flat[1:], wide[::2, 1:4] = x.flatten(), x
    for same in (flat[1:].view(6, 3), wide[::2, 1:4], x.T.contiguous().T):
        assert digests((same, y)) == expected
        assert [digests((same[i : i + 1], y[i : i + 1]))[0] for i in range(6)] == expected
    narrow = torch.randn(4, 3)[:, 1:2]
    assert [digests((narrow[i : i + 1], y[:1]))[0] for i in range(4)] == digests((narrow.clone(), y[:1].expand(4)))
    half = torch.zeros(6, 3, dtype=torch.complex64) + x
    assert digests((half.conj(), y)) == digests((half.conj().resolve_conj(), y))


def test_fisher_takes_rows_at_odd_addresses():
    flat = torch.rand(41)
    shifted, y = flat[1:].view(20, 2), torch.arange(20) % 2
    found, same = (
        commonweight.fisher(torch.nn.Linear(2, 2), [(x, y)], folds=folds).rows
        for x, folds in ((shifted, 1), (shifted.clone(), 4))
    )
    assert found == same == (20, 20, 0)


def test_a_tensor_without_entries_says_nothing():
    x, y = torch.randn(3, 2), torch.arange(3)
    found = digests({"x": x, "extra": torch.zeros(3, 0), "labels": y})
    assert len(set(found)) == 3
    assert len(set(digests({"x": torch.zeros(3, 0, 4), "labels": y}))) == 3


def test_every_entry_of_long_rows_counts():
    """Sparse rows differ in few places: words of a large vocabulary."""
    width = 3 * TILE[1] + 5
    places = torch.randperm(width)[:300]
    rows = torch.zeros(301, width)
    rows[torch.arange(300), places] = 1
    y = torch.zeros(301)
    found = digests((rows, y))
    assert len(set(found)) == 301
    assert found == digests((rows[:150], y[:150])) + digests((rows[150:], y[150:]))
    assert len(set(digests((rows.double()[:50], y[:50])))) == 50


def test_positions_of_labels_count():
    ids = tensor([[5, 6, 7, 8]])
    here = [[-100, 3, -100, -100], [-100, -100, 3, -100], [3, -100, -100, -100], [-100, 3, 3, -100]]
    for mask in ({"attention_mask": torch.ones_like(ids)}, {}):
        found = [digests({"input_ids": ids, **mask, "labels": tensor([row])})[0] for row in here]
        assert len(set(found)) == 4
    # Beside another text too, and where the text is padded on the left
    padded = {"input_ids": tensor([[0, 0, 5, 6, 7, 8]]), "attention_mask": tensor([[0, 0, 1, 1, 1, 1]])}
    again = [digests({**padded, "labels": tensor([[-100, -100, *row]])})[0] for row in here]
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert again == [digests({**text, "labels": tensor([row])})[0] for row in here]


def test_labels_before_the_text_have_positions_too():
    text = {"input_ids": tensor([[0, 0, 5, 6]]), "attention_mask": tensor([[0, 0, 1, 1]])}
    rows = [torch.full((1, 4), -100).index_fill(1, tensor(place), 3) for place in range(4)]
    assert len({digests({**text, "labels": row})[0] for row in rows}) == 4


def test_labels_stand_beside_the_text_of_the_decoder():
    def of(width):
        ids, text = torch.zeros(2, 1, width, dtype=torch.long)
        ids[0, :2], text[0, -2:] = 4, 5
        return digests({
            "input_ids": ids, "attention_mask": ids > 0, "decoder_input_ids": text, "decoder_attention_mask": text > 0,
            "labels": torch.where(text > 0, text, -100),
        })  # fmt: skip

    assert of(2) == of(3) == of(6)


def test_labels_of_another_sequence_are_padded_on_the_right():
    def of(width, labels_width, labels):
        ids = torch.zeros(1, width, dtype=torch.long)
        ids[0, :3] = tensor([4, 5, 6])
        target = torch.full((1, labels_width), -100)
        target[0, : len(labels)] = tensor(labels)
        return digests({"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": target})

    for labels in ([1, 2], [1, 2, 3, 4, 5]):
        assert of(3, 5, labels) == of(5, 5, labels) == of(8, 8, labels) == of(8, 6, labels)
    assert of(3, 5, [1, 2]) != of(3, 5, [2, 1])


def test_tensors_that_are_as_wide_as_the_text_are_no_text():
    text = {"input_ids": tensor([[5, 0, 0, 0]] * 2), "attention_mask": tensor([[1, 0, 0, 0]] * 2), "labels": [1, 1]}
    features = torch.ones(2, 4)
    features[1, 3] = 2
    for name in ("features", "pixels"):
        assert len(set(digests({**text, name: features}))) == 2
        assert len(set(digests({**text, name: features.long()}))) == 2
    assert len(set(digests({**text, "token_type_ids": features.long()}))) == 1


def test_a_gap_in_the_text_moves_what_follows():
    one, other = (
        digests({"input_ids": tensor([ids]), "attention_mask": (tensor([ids]) > 0).long(), "labels": [1]})
        for ids in ([5, 6, 0], [5, 0, 6])
    )
    assert one != other


def test_masks_stand_beside_what_they_mask():
    def nested(ids, width, label=1):
        padded = tensor([ids + [0] * (width - len(ids))])
        text = {"input_ids": padded, "attention_mask": (padded > 0).long()}
        return digests({"x": text, "pair": [text], "labels": [label]})

    assert nested([1, 2], 2) == nested([1, 2], 5) != nested([1, 2, 3], 5)
    bare, elsewhere = (
        digests({"x": {"input_ids": tensor([[1, 2, junk]])}, "attention_mask": tensor([[1, 1, 0]]), "labels": [1]})
        for junk in (3, 4)
    )
    assert bare != elsewhere  # the mask of something else

    def per_token(width):
        ids = torch.zeros(1, width, dtype=torch.long)
        ids[0, -2:] = tensor([7, 8])
        return digests({
            "x": {"input_ids": ids, "attention_mask": (ids > 0).long()}, "labels": torch.where(ids > 0, ids, -100)
        })  # fmt: skip

    assert per_token(2) == per_token(4)


def mixed(value):
    """The finaliser of MurmurHash3, in whole numbers."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor % 2**64
    return value ^ value >> 33


def key(path, place):
    seed = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
    return mixed((seed + place * 0x9E3779B97F4A7C15) % 2**64) | 1


def summed(path, words):
    spread = [word * 0xFF51AFD7ED558CCD % 2**64 for word in words]
    # the shift keeps the sign
    folded = [word ^ (word >> 32 | (0xFFFFFFFF00000000 if word >> 63 else 0)) for word in spread]
    return key(path, 0) * len(words) + sum(key(path, place) * word for place, word in enumerate(folded, 1))


def test_digests_stay_what_they_are():
    """They are stored, so a footprint of another release has the same: the formula, written out once more."""
    x, y = torch.tensor([[0.5, -1.0, 2.0], [3.0, 4.0, 5.0]]), tensor([0, 7])
    for row, found in enumerate(digests((x, y))):
        words = struct.unpack("<2Q", struct.pack("<3fi", *x[row].tolist(), 0))
        assert found % 2**64 == mixed((summed("", words) + summed("labels", [int(y[row])])) % 2**64)
    long = torch.randint(-(2**62), 2**62, (1, TILE[1] + 3), generator=torch.Generator().manual_seed(0))
    words = [word % 2**64 for word in long[0].tolist()]
    assert digests((long, y[:1]))[0] % 2**64 == mixed((summed("", words) + summed("labels", [0])) % 2**64)


def test_digests_of_texts_stay_what_they_are():
    ids, mask = tensor([[0, 9, 8, 0]]), tensor([[0, 1, 1, 0]])
    (found,) = digests({"input_ids": ids, "attention_mask": mask, "labels": tensor([[-100, -100, 8, -100]])})

    def positions(path, words):
        return sum(key(f"{path} by position", place) * summed(path, [word]) for place, word in words.items())

    parts = {"/input_ids": {0: 9, 1: 8}, "/attention_mask": {0: 1, 1: 1}, "labels": {1: 8}}
    assert found % 2**64 == mixed(sum(positions(path, words) for path, words in parts.items()) % 2**64)


@pytest.mark.parametrize("folds", [1, 3])
def test_a_fisher_keeps_them_fold_by_fold_in_memory_and_on_disk(tmp_path, folds):
    x, y = examples(20)
    rows = {"input": x, "labels": y}
    model = small_mlp()
    one = commonweight.fisher(model, [rows], folds=folds, loss="classification")
    other = commonweight.fisher(model, in_batches(rows, 6), folds=folds, loss="classification", folder=tmp_path / "f")
    expected = digests(rows)
    for found in (one, other, Footprint.load(one.save(tmp_path / "saved"))):
        assert [len(part) for part in found.row_digests.values()] == ([fold.count for fold in found.folds] or [20])
        assert sorted(torch.cat(list(found.row_digests.values())).tolist()) == sorted(expected)
        assert {k: sorted(v.tolist()) for k, v in found.row_digests.items()} == {
            k: sorted(v.tolist()) for k, v in one.row_digests.items()
        }
        assert found.rows == (20, 20, 0)
