"""Split designs: complementary, balanced, the same every time."""

from collections import Counter
from itertools import combinations

import pytest

from commonweight.overlaps.resampling.splits import splits_of


@pytest.mark.parametrize("folds", range(2, 25))
def test_parts_partition_the_folds_and_are_about_equal(folds):
    design = splits_of(folds)
    assert design.halves
    for parts in design.halves:
        assert sorted(fold for part in parts for fold in part) == list(range(folds))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def together(designs):
    return Counter(pair for parts in designs for part in parts for pair in combinations(part, 2))


@pytest.mark.parametrize("folds", [4, 8, 12, 16, 20, 24])
def test_hadamard_splits_put_any_two_folds_together_equally_often(folds):
    design = splits_of(folds)
    assert len(design.halves) == folds - 1
    assert "Hadamard" in design.words
    counts = together(design.halves)
    assert len(counts) == folds * (folds - 1) // 2
    assert set(counts.values()) == {folds // 2 - 1}


def test_other_numbers_take_all_splits_or_draw_them():
    assert len(splits_of(5).halves) == len(splits_of(6).halves) == 10
    assert len(set(together(splits_of(6).halves).values())) == 1
    assert splits_of(10).words == "20 balanced splits of 10 folds, drawn with a fixed seed"
    splits_of.cache_clear()
    assert splits_of(10) == splits_of(10)


def test_too_few_folds_have_no_splits():
    for folds in (0, 1):
        assert splits_of(folds).halves == ()
