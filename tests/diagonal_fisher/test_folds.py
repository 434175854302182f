"""Folds: decided by the source row alone, disjoint, complete, and exact each on its own."""

from __future__ import annotations

import hashlib

import pytest
import torch
from diagonal_fisher.small import examples, gap, in_batches, rows, small_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, tensor

import commonweight
from commonweight.base import UsageError
from commonweight.footprints import FoldSorted
from commonweight.footprints.folds import fold_of

SIZE = 20
SOURCE = [(7 * i + 3) % 101 for i in range(SIZE)]


def expected_fold(row, folds):
    """The fold map, written out once more."""
    return (int.from_bytes(hashlib.blake2b(str(row).encode(), digest_size=8).digest(), "big") >> 1) % folds


def batch_of(positions=range(SIZE)):
    x, y = examples(SIZE)
    return rows({"input": x, "labels": y, "source_row": tensor(SOURCE)}, list(positions))


def measure(batches, folds=3, **options):
    return commonweight.fisher(small_mlp(), batches, loss="classification", folds=folds, **options)


def by_fold(folds, size):
    """Batches fold by fold."""
    batches = []
    for fold in range(folds):
        here = [i for i in range(SIZE) if expected_fold(SOURCE[i], folds) == fold]
        batches += [batch_of(here[first : first + size]) for first in range(0, len(here), size)]
    return batches


def folds_agree(a, b):
    return [fold.count for fold in a.folds] == [fold.count for fold in b.folds] and max(
        gap(one.tensors, other.tensors) for one, other in zip(a.folds, b.folds, strict=True)
    )


@given(st.integers(0, 2**40), st.integers(1, 64))
def test_the_fold_is_a_hash_of_the_source_row(row, folds):
    assert fold_of(row, folds) == expected_fold(row, folds)
    assert 0 <= fold_of(row, folds) < folds


def test_folds_are_about_equal_and_not_the_row_modulo_the_folds():
    found = [fold_of(row, 8) for row in range(8000)]
    assert all(800 < found.count(fold) < 1200 for fold in range(8))
    assert found != [row % 8 for row in range(8000)]


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(SIZE)), st.integers(1, SIZE), st.integers(2, 4))
def test_nothing_but_the_source_row_decides(order, size, folds):
    batches = [batch_of(order[first : first + size]) for first in range(0, SIZE, size)]
    footprint = measure(batches, folds)
    assert [fold.count for fold in footprint.folds] == [
        sum(expected_fold(row, folds) == fold for row in SOURCE) for fold in range(folds)
    ]
    assert folds_agree(footprint, measure([batch_of()], folds)) < 1e-10


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_fold_is_a_measurement_of_just_its_rows(folds):
    footprint = measure(in_batches(batch_of(), 6), folds)
    assert len(footprint.folds) == folds
    assert sum(fold.count for fold in footprint.folds) == footprint.count == SIZE
    for number, fold in enumerate(footprint.folds):
        here = [i for i in range(SIZE) if expected_fold(SOURCE[i], folds) == number]
        alone = measure([batch_of(here)], 1)
        assert fold.count == alone.count == len(here)
        assert gap(fold.tensors, alone.tensors) < 1e-10
        assert gap(fold.tensors, footprint.tensors) > 1e-2


def test_the_whole_is_the_weighted_mean_of_its_folds_and_what_one_piece_gives():
    batches = in_batches(batch_of(), 6)
    footprint, one_piece = measure(batches), measure(batches, 1)
    mean = {
        name: sum(fold.tensors[name] * fold.count for fold in footprint.folds) / footprint.count for name in footprint
    }
    assert gap(footprint, mean) < 1e-12
    assert gap(footprint, one_piece.tensors) < 1e-12
    assert len({fold.count for fold in footprint.folds}) > 1  # so that weights matter
    unweighted = {name: sum(fold.tensors[name] for fold in footprint.folds) / 3 for name in footprint}
    assert gap(footprint, unweighted) > 1e-3
    for layer, spread in one_piece.spread.items():
        assert footprint.spread[layer].total == pytest.approx(spread.total, rel=1e-12)
        assert footprint.spread[layer].squares == pytest.approx(spread.squares, rel=1e-12)
    assert footprint.metadata["folds"] == {"count": 3, "map": "blake2b-64(decimal source row) mod folds"}
    assert one_piece.folds == ()


def test_in_float32_the_folds_add_to_the_whole():
    x, y = examples(SIZE)
    footprint = commonweight.fisher(small_mlp().float(), in_batches((x.float(), y), 6), folds=3)
    mean = {
        name: sum(fold.tensors[name].double() * fold.count for fold in footprint.folds) / SIZE for name in footprint
    }
    assert all(tensor.dtype == torch.float32 for tensor in footprint.tensors.values())
    assert gap(footprint, mean) < 1e-6


@pytest.mark.parametrize("size", [1, 4])
def test_mixed_and_sorted_batches_in_memory_and_in_a_folder_give_the_same(tmp_path, size):
    mixed = measure(in_batches(batch_of(), size))
    others = {
        "sorted": measure(FoldSorted(by_fold(3, size), 3)),
        "sorted generator": measure(FoldSorted(iter(by_fold(3, size)), 3)),
        "mixed folder": measure(in_batches(batch_of(), size), folder=tmp_path / "mixed"),
        "sorted folder": measure(FoldSorted(by_fold(3, size), 3), folder=tmp_path / "sorted"),
        "progress": measure(FoldSorted(by_fold(3, size), 3), progress=True),
    }
    for name, other in others.items():
        assert folds_agree(other, mixed) < 1e-12, name
        assert gap(other, mixed.tensors) < 1e-12, name
        assert other.spread[""].total == pytest.approx(mixed.spread[""].total, rel=1e-12), name
    assert others["mixed folder"].metadata == mixed.metadata
    elsewhere = measure([{**batch_of(), "source_row": torch.arange(SIZE)}])
    assert folds_agree(elsewhere, mixed) is False or folds_agree(elsewhere, mixed) > 1e-2


def test_sorted_batches_are_not_held():
    """A batch is asked for when the one before was measured: loader and model take turns."""
    turns = []
    model = small_mlp()
    model.register_forward_hook(lambda *_: turns.append("model"))

    def loader():
        for batch in by_fold(3, 2):
            turns.append("loader")
            yield batch

    commonweight.fisher(model, FoldSorted(loader(), 3), loss="classification", folds=3)
    batches = len(by_fold(3, 2))
    assert turns[-batches:] == ["loader", "model"] * (batches // 2)  # once routes were chosen on the first
    turns.clear()
    commonweight.fisher(model, loader(), loss="classification", folds=3)
    assert turns[:batches] == ["loader"] * batches


def test_the_running_number_stands_in_for_the_source_row():
    x, y = examples(SIZE)
    plain = commonweight.fisher(small_mlp(), in_batches((x, y), 3), folds=3)
    numbered = measure([{"input": x, "labels": y, "source_row": torch.arange(SIZE)}])
    assert folds_agree(plain, numbered) < 1e-12


def test_a_broken_promise_is_refused():
    batches = by_fold(3, 4)
    with pytest.raises(
        UsageError, match=r"FoldSorted batches must come fold by fold, each within one fold: got folds \[0"
    ):
        measure(FoldSorted([batch_of()], 3))
    with pytest.raises(UsageError, match=r"must come fold by fold.* got folds \[0\] while fold 2 was measured"):
        measure(FoldSorted([*batches[1:], batches[0]], 3))
    with pytest.raises(UsageError, match=r"must come fold by fold|fold 0 of 3 holds no example"):
        measure(FoldSorted(batches[::-1], 3))


@pytest.mark.parametrize("promised", [2, 6])
def test_a_promise_of_another_number_of_folds_is_refused(promised):
    with pytest.raises(UsageError, match=f"{promised}.*3|3.*{promised}"):
        measure(FoldSorted(by_fold(3, 4), promised))


def test_a_promise_does_not_matter_in_one_piece():
    one_piece = measure([batch_of()], 1)
    assert gap(measure(FoldSorted(by_fold(3, 4), 3), 1), one_piece.tensors) < 1e-12
    assert measure(FoldSorted(by_fold(3, 4), 3), 1).folds == ()


@pytest.mark.parametrize("is_sorted", [False, True])
def test_too_few_examples_for_the_folds(is_sorted):
    only = [i for i in range(SIZE) if expected_fold(SOURCE[i], 3) != 1]
    batches = [batch_of([i]) for i in sorted(only, key=lambda i: expected_fold(SOURCE[i], 3))]
    with pytest.raises(UsageError, match="fold 1 of 3 holds no example: use fewer folds or more examples"):
        measure(FoldSorted(batches, 3) if is_sorted else batches)


def test_an_empty_loader_with_folds():
    with pytest.raises(UsageError, match="no example"):
        measure([], 2)


def test_batches_of_different_padding_lengths():
    """Sub-batches of different shapes are never joined wrongly."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, ids, mask):
            return self.head((self.embed(ids).tanh() * mask[..., None]).sum(1))

    torch.manual_seed(0)
    model = Masked().double()
    lengths = [2, 5, 3, 5, 2, 4, 7, 2, 3, 3, 5, 5]
    texts = [torch.randint(1, 9, (n,)) for n in lengths]

    def batch(numbers, width):
        ids = torch.zeros(len(numbers), width, dtype=torch.long)
        for i, number in enumerate(numbers):
            ids[i, : lengths[number]] = texts[number]
        return {"ids": ids, "mask": ids > 0, "labels": tensor(numbers) % 3, "source_row": numbers}

    ragged = [batch([0, 1, 2, 3], 5), batch([4, 5, 6, 7], 7), batch([8, 9], 3), batch([10, 11], 5)]
    one_width = [batch(list(range(12)), 9)]
    a, b = (commonweight.fisher(model, x, loss="classification", folds=3) for x in (ragged, one_width))
    assert folds_agree(a, b) < 1e-10
    assert gap(a, b.tensors) < 1e-10
    shifted = [{**part, "labels": (part["labels"] + 1) % 3} for part in ragged]
    assert gap(commonweight.fisher(model, shifted, loss="classification", folds=3), b.tensors) > 1e-2


class Shared(nn.Module):
    """Uses something that the whole batch shares."""

    def __init__(self):
        super().__init__()
        self.positions, self.mix, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x, places=None, scale=1.0):
        x = x + self.positions(places) if places is not None else x
        return self.head(self.mix(x).tanh().mean(1)) / scale


@pytest.mark.parametrize(
    "shared",
    [{"places": torch.arange(7)}, {"places": torch.arange(7)[None]}, {"scale": tensor(2.0)}, {"scale": tensor([2.0])}],
    ids=["places", "row of places", "scale", "scale of one"],
)
@pytest.mark.parametrize("folds", [2, 4])
def test_tensors_that_a_batch_shares(shared, folds):
    torch.manual_seed(0)
    model = Shared().double()
    x, y = torch.randn(SIZE, 7, 6, dtype=torch.float64), torch.arange(SIZE) % 3
    batches = [
        {"x": x[i : i + 4], "labels": y[i : i + 4], "source_row": SOURCE[i : i + 4], **shared}
        for i in range(0, SIZE, 4)
    ]
    footprint = commonweight.fisher(model, batches, loss="classification", folds=folds)
    assert gap(footprint, commonweight.fisher(model, batches, loss="classification").tensors) < 1e-10
    for number, fold in enumerate(footprint.folds):
        here = [i for i in range(SIZE) if expected_fold(SOURCE[i], folds) == number]
        full = {key: value.expand(len(here), 7) for key, value in shared.items() if key == "places"}
        alone = commonweight.fisher(model, [{"x": x[here], "labels": y[here], **shared, **full}], loss="classification")
        assert gap(fold.tensors, alone.tensors) < 1e-10
    plain = [{key: batch[key] for key in ("x", "labels", "source_row")} for batch in batches]
    assert gap(commonweight.fisher(model, plain, loss="classification", folds=folds), footprint.tensors) > 1e-3


def test_sampled_labels_are_the_same_with_and_without_folds():
    folded = measure(in_batches(batch_of(), 3), 4, fisher_type="mc")
    assert gap(folded, measure([batch_of()], 1, fisher_type="mc").tensors) < 1e-12
    assert gap(folded, measure([batch_of()], 1, fisher_type="mc", seed=1).tensors) > 1e-2
