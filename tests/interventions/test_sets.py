"""Sets of weights: the largest entries, what two sets have in common, and parts of equal size."""

from __future__ import annotations

import pytest
import torch
from torch import tensor

from commonweight import Footprint
from commonweight.base.errors import UsageError
from commonweight.footprints.packed import PackedMasks
from commonweight.footprints.slices import ENTRIES_PER_SLICE
from commonweight.interventions.sets import Sets, both, complement, either, equal_parts, only, size, top_set


def scattered(seed=0, kind="saliency"):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (30, 7), "a.bias": (30,), "b.weight": (3, 5, 2), "scale": ()}
    draw = torch.randn if kind == "change" else torch.rand
    return Footprint(kind, {name: draw(shape, generator=generator) for name, shape in shapes.items()}, 0)


@pytest.mark.parametrize("kind", ["saliency", "change"])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
def test_the_largest_are_chosen_over_all_parameters(kind, fraction):
    footprint = scattered(kind=kind)
    found = top_set(footprint, fraction)
    flat = footprint.flat().abs()
    wanted = round(fraction * len(flat))
    expected = torch.zeros(len(flat), dtype=torch.bool)
    expected[flat.argsort(descending=True)[:wanted]] = True
    assert torch.equal(torch.cat([found[name].flatten() for name in found]), expected)
    assert size(found) == wanted


def test_equal_entries_are_taken_in_order_and_zeros_never():
    footprint = Footprint("saliency", {"a": tensor([1.0, 1.0, 0.0]), "b": tensor([1.0, 0.0, 0.0])}, 0)
    assert {name: each.tolist() for name, each in top_set(footprint, 0.34).items()} == {
        "a": [True, True, False],
        "b": [False, False, False],
    }
    assert size(top_set(footprint, 1.0)) == 3


def test_small_and_large_numbers_are_told_apart():
    values = torch.tensor([1e-38, 1e-40, 3e38, 1.0000001, 1.0])
    found = top_set(Footprint("fisher", {"w": values}, 1), 0.4)
    assert found["w"].tolist() == [False, False, True, True, False]


def test_parameters_are_read_in_slices_and_chosen_among():
    count = 2 * ENTRIES_PER_SLICE + 3
    values = torch.arange(count, dtype=torch.float32)
    footprint = Footprint("fisher", {"w": values, "v": torch.full((4,), 1e9)}, 1)
    found = top_set(footprint, 10 / count, ["w"])
    assert list(found) == ["w"]
    assert found["w"].nonzero().flatten().tolist() == list(range(count - 10, count))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_is_checked(fraction):
    with pytest.raises(UsageError, match="a fraction of the weights must be above 0 and at most 1"):
        top_set(scattered(), fraction)


def test_sets_of_two_models():
    a, b = (top_set(scattered(seed), 0.3) for seed in (0, 1))
    sets = Sets({"A": a, "B": b})
    named = sets.named
    assert list(named) == ["A", "B", "A∩B", "only A", "only B"]
    for name in a:
        assert torch.equal(named["A∩B"][name], a[name] & b[name])
        assert torch.equal(named["only A"][name], a[name] & ~b[name])
        assert torch.equal(sets.every[name], a[name] | b[name])
        assert torch.equal(complement(a)[name], ~a[name])
        for model in ("A", "B"):  # a shared set is inside both
            assert not (named["A∩B"][name] & ~named[model][name]).any()
    assert size(both(a, b)) + size(only(a, b)) + size(only(b, a)) == size(either(a, b))
    assert list(Sets({"A": a}).named) == ["A"]


def test_parts_of_equal_size_in_every_parameter():
    a, b = (top_set(scattered(seed), fraction) for seed, fraction in ((0, 0.3), (1, 0.1)))
    parts = equal_parts(a, b, seed=3)
    for name in a:
        counts = [int(part[name].sum()) for part in parts]
        assert counts[0] == counts[1] == min(int(a[name].sum()), int(b[name].sum()))
        assert not (parts[0][name] & ~a[name]).any()
        assert not (parts[1][name] & ~b[name]).any()
    again = equal_parts(a, b, seed=3)
    assert all(torch.equal(parts[0][name], again[0][name]) for name in a)
    assert any(not torch.equal(parts[0][name], equal_parts(a, b, seed=4)[0][name]) for name in a)


def test_an_empty_set_has_no_weights():
    a = PackedMasks.of({"w": torch.ones(11, dtype=torch.bool)})
    assert size(only(a, a)) == 0
