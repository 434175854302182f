"""What later batches show, and the rows that routes were chosen on could not, is measured exactly all the same."""

from __future__ import annotations

import pytest
import torch
from diagonal_fisher.loop import (
    assert_exact,
    in_sizes,
    model_label_nll,
    nll,
    randn,
    seq2seq_nll,
    y,
)
from diagonal_fisher.zoo import CLASSES, VOCABULARY, text, text_model
from torch import nn
from torch.utils.checkpoint import checkpoint

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TimeFirst(nn.Module):
    """A layer between two transpositions."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.mix(self.embed(x).transpose(0, 1)).tanh()
        return self.head(x.transpose(0, 1).mean(1))


SIZES = [[1] * 16 + [4, 4, 4], [1] * 16 + [2, 1, 9], [1, 1, 26], [2] * 8 + [12], [28]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("length", [4, 8, 9])
def test_a_layer_that_sees_time_first_after_batches_of_one(sizes, length):
    torch.manual_seed(0)
    batches = list(in_sizes((randn(28, length, 6), y(28)), sizes))
    assert_exact(TimeFirst().double(), batches)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[2]], ids=str)
def test_t5_after_batches_of_one(sizes):
    torch.manual_seed(0)
    model = text_model("t5").model.double()
    batches = list(in_sizes(text(28, 8, labels="token"), sizes))
    assert_exact(model, batches, loss=None, nll=seq2seq_nll)


def test_t5_with_folds_of_padded_batches():
    torch.manual_seed(0)
    model = text_model("t5").model.double()
    batches = [text(2, length, labels="token") for length in (4, 6, 8, 10) * 3]
    assert_exact(model, batches, loss=None, nll=seq2seq_nll, folds=4)


class ChunkMajor(nn.Module):
    """Long texts are split; the pieces of all texts come one after the other."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, ids):
        h = self.embed(ids)
        if h.shape[1] > 8:
            h = self.mix(torch.cat(h.split(8, 1), 0)).tanh()
            h = torch.cat(h.split(len(ids), 0), 1)
        else:
            h = self.mix(h).tanh()
        return self.head(h.mean(1))


@pytest.mark.parametrize("lengths", [(8, 8, 16), (8, 8, 32, 16), (16, 8, 8), (8, 16, 8, 64)], ids=str)
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_pieces_of_texts_one_after_the_other_from_the_third_batch(lengths, reentrant):
    torch.manual_seed(0)
    model = ChunkMajor().double()
    if reentrant is not None:
        model.mix = Recomputed(model.mix, reentrant=reentrant)
    batches = [(torch.randint(0, VOCABULARY, (8, length)), y()) for length in lengths]
    assert_exact(model, batches)


class Recomputed(nn.Module):
    def __init__(self, inner, *, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Unpadded(nn.Module):
    """Runs a layer on the real tokens only."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.bool()
        h = self.embed(input_ids)
        out = torch.zeros_like(h).masked_scatter(mask[..., None], self.mix(h[mask]).tanh())
        return self.head(out.sum(1))


def texts_of(lengths, padded):
    mask = (torch.arange(padded)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, VOCABULARY, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": y(len(lengths))}


@pytest.mark.parametrize(
    "later",
    [
        ([4, 6, 6, 6, 6, 6, 7, 7], 7),  # 48 tokens: a multiple of the batch
        ([4, 4, 4, 4, 6, 6, 6, 6], 6),  # 40, as many as before, in texts of another length
        ([7, 6, 5, 7, 7, 7, 7, 7], 7),
    ],
    ids=["a multiple", "as many as before", "no multiple"],
)
def test_batches_of_one_length_first_and_mixed_ones_later(later):
    torch.manual_seed(0)
    assert_exact(Unpadded().double(), [texts_of([5] * 8, 5), texts_of([5] * 8, 5), texts_of(*later)])


@pytest.mark.parametrize(
    "later",
    [[4, 4, 4, 4, 6, 6, 6, 6], [3, 7, 5, 5, 5, 5, 5, 5]],
    ids=["halves", "one pair"],
)
def test_mixed_lengths_with_as_many_tokens_and_the_same_padding(later):
    """Padded to a fixed length, sorted by length: the shapes never change, and neither does the number of rows."""
    torch.manual_seed(0)
    assert_exact(Unpadded().double(), [texts_of([5] * 8, 7), texts_of([5] * 8, 7), texts_of(later, 7)])


class Masked(nn.Module):
    """A head on the marked positions only."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, marked):
        h = self.embed(input_ids).tanh()
        found = torch.zeros_like(h).masked_scatter(marked[..., None], self.mix(h[marked]).tanh())
        return self.head(found.sum(1) + h.mean(1))


def test_one_marked_position_in_every_text_first_and_any_number_later():
    torch.manual_seed(0)
    batches = []
    for counts in ([1] * 8, [1] * 8, [2, 0, 1, 1, 3, 0, 1, 0]):
        marked = torch.arange(7)[None] < torch.tensor(counts)[:, None]
        batches.append({"input_ids": torch.randint(3, VOCABULARY, (8, 7)), "marked": marked, "labels": y()})
    assert_exact(Masked().double(), batches)


class Flattened(nn.Module):
    """Long texts go through the layer as one row."""

    def __init__(self, *, reentrant=None):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.reentrant = reentrant

    def mixed(self, x):
        size, length, _ = x.shape
        return self.mix(x.reshape(1, -1, 6)).view(size, length, 6) if length > 5 else self.mix(x)

    def forward(self, x):
        x = self.embed(x)
        x = self.mixed(x) if self.reentrant is None else checkpoint(self.mixed, x, use_reentrant=self.reentrant)
        return self.head(x.tanh().mean(1))


@pytest.mark.parametrize("rule", ["empirical", "exact"])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_layer_that_is_refused_by_a_later_batch(rule, reentrant):
    torch.manual_seed(0)
    first = (randn(8, 5, 6), y())
    batches = [first, first, (randn(8, 6, 6), y()), first]
    losses = {"empirical": nll, "exact": model_label_nll}
    footprint = assert_exact(Flattened(reentrant=reentrant).double(), batches, nll=losses[rule], fisher_type=rule)
    assert "mix.weight" in footprint.metadata["generic"]


@pytest.mark.parametrize("reentrant", [None, True, False])
@pytest.mark.parametrize("lengths", [(6, 5, 5), (5, 6, 5, 6), (6, 5, 6)], ids=str)
def test_a_layer_that_only_some_batches_refuse(reentrant, lengths):
    """The routes are chosen again for texts of another length; what was learned before must hold."""
    torch.manual_seed(0)
    assert_exact(Flattened(reentrant=reentrant).double(), [(randn(8, length, 6), y()) for length in lengths])
