"""The same rows in other folds are refused: what two footprints have in common would be their noise."""

from __future__ import annotations

import copy

import pytest
import torch

from commonweight import NotComparableError, fisher, overlap
from commonweight.footprint.copies import CopiesWarning

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


def measured(model, rows, *, x=X, source=None, drop_last=False, folds=8):
    batches = []
    for part in rows.split(48):
        if len(part) == 48 or not drop_last:
            batch = {"input": x[part], "labels": Y[part]}
            batches.append(batch if source is None else {**batch, "source_row": source[part]})
    return fisher(model, batches, folds=folds, verify=False, loss="classification")


def test_a_shuffled_loader_is_refused(models):
    a, b = models
    one, other = measured(a, IN_ORDER), measured(b, SHUFFLED)
    with pytest.raises(NotComparableError, match=(
        r"'a' and 'b' were measured on the same rows in another order, which puts them into different folds "
        r"\(1\d\d of 200 rows that each of them holds once\).*an unshuffled loader or a source_row.*intervals=False"
    )):  # fmt: skip
        overlap({"a": one, "third": measured(b, IN_ORDER), "b": other})
    assert overlap({"a": one, "b": other}, intervals=False).pooled[0, 1] > 0.5
    assert overlap({"a": one, "b": measured(b, IN_ORDER)}).ceiling.pooled[0] > 0.5


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
    with pytest.raises(NotComparableError, match="the same rows in another order"):
        overlap({"a": measured(a, IN_ORDER), "b": measured(b, rows, drop_last=len(rows) > 60)})


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
                fisher(model, [(x[rows], rows % 3)], folds=4, verify=False, loss="classification")
                for model, rows in zip(models, draws, strict=True)
            ]
        assert overlap(dict(zip("ab", prints, strict=True))).resampled.folds == 4


def test_copies_in_another_order_are_refused(models):
    """No row is there once, and all are the same."""
    twice = torch.arange(100).repeat(2)
    with pytest.warns(CopiesWarning):
        one, other = measured(models[0], twice), measured(models[1], twice[SHUFFLED])
    with pytest.raises(NotComparableError, match="into different folds: noise"):
        overlap({"a": one, "b": other})
