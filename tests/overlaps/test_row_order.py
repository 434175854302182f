"""The same rows in other folds are refused: what two footprints have in common would be their noise."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from commonweight import Footprint, fisher, overlap
from commonweight.base import NotComparableError
from commonweight.footprints.copies import CopiesWarning
from commonweight.overlaps.resampling.same_folds import check_row_order, most_in_common

COUNT = 200
X, Y = torch.randn(COUNT, 12, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT) % 3
IN_ORDER = torch.arange(COUNT)
SHUFFLED = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    start = torch.nn.Linear(12, 3)
    other = copy.deepcopy(start)
    with torch.no_grad():
        other.weight.add_(0.05 * torch.randn(3, 12))
    return start, other


def measured(model, rows, *, x=X, source=None, folds=8):
    batches = []
    for part in rows.split(48):
        batch = {"input": x[part], "labels": Y[part]}
        batches.append(batch if source is None else {**batch, "source_row": source[part]})
    return fisher(model, batches, folds=folds, loss="classification")


def test_a_shuffled_loader_is_refused(models):
    a, b = models
    one, other = measured(a, IN_ORDER), measured(b, SHUFFLED)
    with pytest.raises(NotComparableError, match=(
        r"'a' and 'b' were measured on the same rows in another order, which puts 1\d\d of 200 into different folds: "
        r"noise.*number the rows alike, with an unshuffled loader or a source_row.*intervals=False"
    )):  # fmt: skip
        overlap({"a": one, "third": measured(b, IN_ORDER), "b": other})
    assert overlap({"a": one, "b": other}, intervals=False).pooled[0, 1] > 0.5
    assert overlap({"a": one, "b": measured(b, IN_ORDER)}).noise_ceiling.pooled[0] > 0.5


def test_numbered_rows_may_come_in_any_order(models):
    a, b = models
    numbers = 3 * torch.arange(COUNT)
    one, other = measured(a, IN_ORDER, source=numbers), measured(b, SHUFFLED, source=numbers)
    assert overlap({"a": one, "b": other}).estimate("corrected", "a", "b").value < 1.02
    with pytest.raises(NotComparableError, match="the same rows in another order"):  # numbered in another way
        overlap({"a": one, "b": measured(b, IN_ORDER)})


@pytest.mark.parametrize("rows", [SHUFFLED, SHUFFLED[:110], SHUFFLED[:60]])
def test_a_part_of_the_rows_in_another_order_is_refused_too(models, rows):
    """As a loader gives it that drops its last batch, or one of a part."""
    a, b = models
    words = r"another order, which puts 1\d\d of 200" if len(rows) == COUNT else (
        rf"'a' and 'b' share {len(rows)} rows, of which \d+ lie in different folds: .*give every row a source_row, "
        "the same one for the same row everywhere, and measure again"
    )  # fmt: skip
    with pytest.raises(NotComparableError, match=words):
        overlap({"a": measured(a, IN_ORDER), "b": measured(b, rows)})


def test_other_rows_and_other_contents_are_allowed(models):
    a, b = models
    planted = X.clone()
    planted[:, 0] = 4.0
    apart = SHUFFLED[:80]
    rest = torch.tensor([row for row in range(COUNT) if row not in set(apart.tolist())])
    for other in (measured(b, SHUFFLED, x=planted), measured(b, rest)):
        assert overlap({"a": measured(a, apart), "b": other}).estimate("corrected", "a", "b").count == 8
    # a few rows in common
    overlap({"a": measured(a, apart), "b": measured(b, torch.cat([rest, apart[:30]]))})


def test_independent_draws_of_few_different_rows_are_not_the_same_rows(models):
    generator = torch.Generator().manual_seed(2)
    for many in (40, 200, 400):
        x = torch.randn(many, 12, generator=generator)
        draws = [torch.randint(many, (COUNT,), generator=generator) for _ in range(2)]
        with pytest.warns(CopiesWarning):
            prints = [
                fisher(model, [(x[rows], rows % 3)], folds=4, loss="classification")
                for model, rows in zip(models, draws, strict=True)
            ]
        assert overlap(dict(zip("ab", prints, strict=True))).resampled.folds == 4


def test_copies_in_another_order_are_refused(models):
    """No row is there once, and all are the same."""
    twice = torch.arange(100).repeat(2)
    with pytest.warns(CopiesWarning):
        one, other = measured(models[0], twice), measured(models[1], twice[SHUFFLED])
    with pytest.raises(NotComparableError, match=r"puts 1.. of 200 into different folds: noise"):
        overlap({"a": one, "b": other})


def held(rows, folds=8, *, numbered=False):
    """A footprint of these rows, one in each fold in turn."""
    digests = torch.as_tensor(rows, dtype=torch.int64) * 0x9E3779B97F4A7C1
    parts = {f"fold-{fold:03d}": digests[fold::folds] for fold in range(folds)}
    numbers = parts if numbered else {}
    return Footprint("fisher", {"w": torch.ones(1)}, len(digests), row_digests=parts, source_rows=numbers)


def refused(one, other, *, numbered=(False, False)):
    try:
        check_row_order({"a": held(one, numbered=numbered[0]), "b": held(other, numbered=numbered[1])})
    except NotComparableError:
        return True
    return False


def swapped(count, rows):
    """Rows of which so many lie in another fold."""
    order = np.arange(count)
    order[:rows] = np.roll(order[:rows], 1)
    return order


@pytest.mark.parametrize("more", [0, 1])
def test_one_common_row_in_twenty_may_lie_in_another_fold(more):
    every = np.arange(2000)
    assert not refused(every, swapped(2000, 0))
    assert not refused(every, swapped(2000, 2))
    assert refused(every, swapped(2000, 100 + more)) == bool(more)
    # The same share of those in common, not of all
    others = np.arange(5000, 6000)
    ours, theirs = np.concatenate([np.arange(1000), others]), np.concatenate([swapped(1000, 50 + more), others + 5000])
    assert refused(ours, theirs) == bool(more)
    assert not refused(np.arange(1000), np.arange(2000))
    assert refused(np.arange(10), np.roll(np.arange(10), 1))


def test_rows_count_as_often_as_they_are_there():
    twice = np.repeat(np.arange(100), 2)
    assert not refused(twice, np.concatenate([twice[2:4], twice[:2], twice[4:]]))
    assert refused(twice, np.concatenate([np.arange(100), np.arange(100)]))


def test_source_rows_say_that_equal_rows_are_no_copies():
    """All combinations of a few features, drawn alike often, in two orders."""
    one, other = np.repeat(np.arange(20), 10), np.tile(np.arange(20), 10)
    for numbered in ((False, False), (True, False), (False, True)):
        assert refused(one, other, numbered=numbered)
    assert not refused(one, other, numbered=(True, True))
    assert refused(np.arange(200), np.roll(np.arange(200), 1), numbered=(True, True))


@pytest.mark.parametrize(("one", "both"), [(24, 21), (200, 110), (2000, 853)])
@pytest.mark.parametrize("more", [0, 1])
def test_as_many_rows_in_common_as_independent_draws_may_have(one, both, more):
    assert int(most_in_common(one)) == both
    smaller = np.concatenate([np.arange(both + more), np.arange(one - both - more) + 9000])
    larger = np.concatenate([np.roll(np.arange(both + more), 1), np.arange(3000) + 20000])
    assert refused(smaller, larger) == refused(larger, smaller) == bool(more)


@pytest.mark.parametrize(("one", "other", "different"), [(100, 2000, 2000), (24, 2000, 2000), (24, 200, 200)])
def test_independent_draws_are_hardly_ever_refused(one, other, different):
    """Where draws have most in common, 36 % of the smaller set; none of 1000 means fewer than 1 in 300."""
    generator = np.random.default_rng(0)
    found = [
        refused(generator.integers(different, size=one), generator.integers(different, size=other)) for _ in range(1000)
    ]
    assert not any(found)


def test_rows_are_sorted_once_per_footprint(monkeypatch):
    sorts = []
    sort = np.argsort
    monkeypatch.setattr(np, "argsort", lambda *args, **named: sorts.append(1) or sort(*args, **named))
    check_row_order({str(k): held(np.arange(40) + 100 * k) for k in range(6)})
    assert len(sorts) == 6
