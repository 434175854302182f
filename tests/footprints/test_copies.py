"""Rows that are there several times: counted by source row where one was given, else by content."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from diagonal_fisher.small import examples, in_batches, small_mlp

import commonweight
from commonweight import Footprint
from commonweight.footprints import FoldSorted
from commonweight.footprints.copies import CopiesWarning, row_counts
from commonweight.footprints.footprint import Spread


def copied(distinct, times, folds=4, **given):
    x, y = examples(distinct)
    rows = {"input": x.repeat(times, 1), "labels": y.repeat(times), **given}
    return commonweight.fisher(small_mlp(), in_batches(rows, 16), folds=folds, loss="classification")


def test_copies_in_other_folds_are_counted_and_warned_of():
    with pytest.warns(CopiesWarning, match=(
        r"80 of 80 rows have copies in other folds \(8 are distinct\).*give all copies of a row one source_row, or, if "
        "equal rows are independent draws, each its own"
    )):  # fmt: skip
        found = copied(8, 10)
    assert found.rows == (80, 8, 80)
    assert found.spread[""].effective_sample_size > 8
    assert found.effective_sample_size == 8
    together = copied(8, 10, source_row=torch.arange(8).repeat(10) * 7)
    assert together.rows == (80, 8, 0)
    assert together.copies is None
    assert together.effective_sample_size == 8
    assert copied(40, 1).effective_sample_size == copied(40, 1).spread[""].effective_sample_size


def test_one_row_in_twenty_may_be_a_copy():
    fine, many = (
        [torch.arange(20, 58), torch.cat([torch.arange(20, 20 + n), torch.arange(60, 62 - n)])] for n in (1, 2)
    )
    assert row_counts(fine) == (40, 39, 2)
    assert row_counts(fine).are_disjoint
    assert not row_counts(many).are_disjoint
    assert row_counts([torch.tensor([1, 1, 1]), torch.tensor([2])]) == (4, 2, 0)


def test_distinct_rows_bound_the_effective_sample_size():
    found = replace(copied(40, 1), spread={"": Spread(9.0, 1.0)})
    assert found.effective_sample_size == 40


def drawn(count=400, **given):
    """Independent draws of three features of 0 or 1: at most 24 different rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(2, (count, 3), generator=generator).float(), torch.randint(3, (count,), generator=generator)
    batches = in_batches({"input": x, "labels": y, **given}, 50)
    return commonweight.fisher(torch.nn.Linear(3, 3), batches, folds=4, loss="classification")


def test_equal_rows_with_source_rows_of_their_own_are_no_copies(tmp_path):
    with pytest.warns(CopiesWarning):
        bare = drawn()
    assert bare.rows.copied == 400
    assert bare.effective_sample_size == bare.rows.distinct <= 24
    with warnings.catch_warnings():
        warnings.simplefilter("error", CopiesWarning)
        numbered = drawn(source_row=torch.arange(400))
    for found in (numbered, Footprint.load(numbered.save(tmp_path / "f"))):
        assert found.rows == (400, 400, 0)
        assert found.effective_sample_size == found.spread[""].effective_sample_size > 200
    assert numbered.row_digests.keys() == bare.row_digests.keys()


def test_rows_with_one_source_row_are_copies_whatever_they_hold():
    found = copied(40, 1, source_row=torch.arange(40) // 4)
    assert found.rows == (40, 10, 0)
    assert found.effective_sample_size == min(10, found.spread[""].effective_sample_size)


def test_places_in_a_file_say_nothing_about_copies():
    x, y = examples(8)
    rows = {"input": x.repeat(10, 1), "labels": y.repeat(10), "source_row": torch.arange(80)}

    def measured(**promised):
        batches = FoldSorted([rows], 1, **promised)
        return commonweight.fisher(small_mlp(), batches, loss="classification").rows

    assert measured() == (80, 80, 0)
    assert measured(by_position=True) == (80, 8, 0)


@pytest.mark.parametrize("folds", [1, 3])
def test_source_rows_count_where_all_rows_have_one(folds, tmp_path):
    x, y = examples(20)
    batches = in_batches({"input": x, "labels": y, "source_row": torch.arange(20)}, 5)
    of = {"folds": folds, "loss": "classification"}
    whole = commonweight.fisher(small_mlp(), batches, folder=tmp_path / "f", **of)
    assert sorted(torch.cat(list(whole.source_rows.values())).tolist()) == list(range(20))
    for fold, rows in whole.source_rows.items():
        assert len(rows) == len(whole.row_digests[fold])
    bare = {"input": x[:1] + 1, "labels": y[:1]}  # in one fold only
    assert commonweight.fisher(small_mlp(), [*batches, bare], **of).source_rows == {}
