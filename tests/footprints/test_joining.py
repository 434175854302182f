"""Fishers joined: their mean over examples, in memory, on disk and in slices; what does not fit is refused."""

from dataclasses import replace

import pytest
import torch

from commonweight import Footprint
from commonweight.base.errors import MeasurementError, UsageError
from commonweight.footprints.folds import FOLD_MAP
from commonweight.footprints.footprint import Fold
from commonweight.footprints.joining import joined

METADATA = {"folds": {"count": 2, "map": FOLD_MAP}}


def part(seed, counts=(2, 3), shape=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    folds = tuple(
        Fold(count, {"a.weight": torch.rand(shape, generator=generator), "b": torch.rand(4, generator=generator)})
        for count in counts
    )
    whole = {name: sum(fold.count * fold.tensors[name] for fold in folds) / sum(counts) for name in ("a.weight", "b")}
    return Footprint("fisher", whole, sum(counts), metadata=METADATA, folds=folds)


def test_the_whole_and_every_fold_are_means_over_examples(tmp_path):
    one, two, three = part(0), part(1, (1, 4)), part(2, (7, 1))
    at_once = joined([one, two, three], METADATA)
    stepwise = joined([joined([one, two], METADATA), Footprint.load(three.save(tmp_path / "three"))], METADATA)
    for found in (at_once, stepwise):
        assert (found.count, [fold.count for fold in found.folds]) == (18, [10, 8])
        for name in found:
            assert torch.allclose(found[name], (5 * one[name] + 5 * two[name] + 8 * three[name]) / 18)
            folds = [each.folds[0].tensors[name] for each in (one, two, three)]
            assert torch.allclose(found.folds[0].tensors[name], (2 * folds[0] + folds[1] + 7 * folds[2]) / 10)
        assert found.tensors.shape("a.weight") == (2, 3)
        assert torch.equal(found.tensors.rows("a.weight", 1, 2), found["a.weight"][1:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, kind="activity"), "got footprint 2 of 2 of kind activity"),
        (lambda f: replace(f, folds=()), "2 parameters with 2 folds, got footprint 2 of 2 with 2 and 0"),
        (lambda f: replace(f, tensors={"a.weight": f["a.weight"], "c": f["b"]}), r"\(b is not in both\)"),
        (lambda f: replace(f, metadata={"folds": {"map": "other"}}), "got other in footprint 2 of 2"),
        (lambda f: replace(f, tensors={**f.tensors, "b": torch.ones(1)}), r"b of shape \[4\], got \[1\]"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        joined([part(0), change(part(1))], METADATA)
    joined([part(0), part(1)], METADATA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, count=6), r"got \[2, 3\] for the 6 examples"),
        (lambda f: replace(f, count=3, folds=(replace(f.folds[0], count=0), f.folds[1])), r"got \[0, 3\] for the 3"),
        (lambda f: replace(f, count=0, folds=tuple(replace(fold, count=0) for fold in f.folds)), r"got \[0, 0\]"),
        (lambda f: replace(f, folds=(f.folds[0], Fold(3, {"b": f["b"]}))), r"fold 1 .*\(a\.weight is not in both\)"),
        (
            lambda f: replace(f, folds=(Fold(2, {**f.folds[0].tensors, "b": torch.ones(1)}), f.folds[1])),
            r"fold 0 of footprint \d of 2: b has shape \[1\], expected \[4\]",
        ),
    ],
)
def test_a_damaged_footprint_is_refused_wherever_it_stands(change, message):
    for footprints in ([part(0), change(part(1))], [change(part(0)), part(1)]):
        with pytest.raises(MeasurementError, match=message):
            joined(footprints, METADATA)


def test_nothing_cannot_be_joined():
    with pytest.raises(UsageError, match="at least one Fisher to join, got none"):
        joined([], {})
