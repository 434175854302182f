"""Null sets: equally many weights in every parameter, that moved as far as those of the set."""

from __future__ import annotations

import pytest
import torch

from commonweight import Footprint
from commonweight.base.errors import UsageError
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.matched import EDGES, matched_sets, random_set
from commonweight.interventions.sets import top_set


def change(count=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Footprint(
        "change",
        {
            "a.weight": torch.randn(count // 40, 40, generator=generator),
            "a.bias": torch.randn(500, generator=generator),
        },
        0,
    )


def chosen_of(footprint, share, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return PackedMasks.of({
        name: torch.rand(each.shape, generator=generator) < share * each.abs().clamp_max(1)
        for name, each in footprint.items()
    })


def squares(footprint, masks):
    return sum(float((footprint[name].double() ** 2)[masks[name]].sum()) for name in masks)


def test_there_are_enough_bins_and_more_of_them_at_the_top():
    assert len(EDGES) - 1 >= 50
    assert (EDGES[1:] > EDGES[:-1]).all()
    assert sum(edge >= 0.95 for edge in EDGES) == 21


def test_random_sets_have_as_many_weights_in_every_parameter():
    of = change()
    chosen = chosen_of(of, 0.1)
    found = [random_set(chosen, seed=0, draw=draw) for draw in range(4)]
    for name in chosen:
        assert {int(each[name].sum()) for each in found} == {int(chosen[name].sum())}
    assert not torch.equal(found[0]["a.weight"], found[1]["a.weight"])
    assert torch.equal(found[0]["a.weight"], random_set(chosen, seed=0)["a.weight"])


def test_matched_sets_lie_outside_and_moved_as_far():
    of = change(40_000)
    chosen = chosen_of(of, 0.05)
    found = matched_sets(chosen, of, chosen, 5, seed=0)
    assert not found.reason
    assert len(found.sets) == 5
    assert found.squares == pytest.approx(squares(of, chosen))
    for each in found.sets:
        for name in chosen:
            assert int(each[name].sum()) == int(chosen[name].sum())
            assert not (each[name] & chosen[name]).any()
        assert squares(of, each) == pytest.approx(found.squares, rel=0.05)
    drawn_at_random = squares(of, random_set(chosen, seed=0))
    assert abs(drawn_at_random / found.squares - 1) > 0.05


def test_weights_of_other_sets_are_not_drawn():
    of = change(40_000)
    chosen = chosen_of(of, 0.02)
    outside = PackedMasks.of({
        name: chosen[name] | (torch.arange(each.numel()).reshape(each.shape) % 2 == 0) for name, each in of.items()
    })
    for each in matched_sets(chosen, of, outside, 2, seed=0).sets:
        assert not any((each[name] & outside[name]).any() for name in outside)


def test_a_top_set_of_the_change_has_no_match():
    of = change()
    chosen = top_set(of, 0.05)
    found = matched_sets(chosen, of, chosen, 2, seed=0)
    assert found.sets == ()
    assert "bins of |Δ| are too thin" in found.reason


def test_sets_that_moved_less_far_are_refused():
    values = torch.full((1000,), 0.1)
    values[:10] = torch.linspace(1, 10, 10)  # in the top bins, where those outside are smaller
    of = Footprint("change", {"w": values.reshape(1, -1)}, 0)
    chosen = PackedMasks.of({"w": (torch.arange(1000) % 2 == 1).reshape(1, -1)})
    found = matched_sets(chosen, of, chosen, 2, seed=0)
    assert found.sets == ()
    assert found.reason.startswith("ΣΔ² is")
    assert found.squares != pytest.approx(found.squares_of_nulls, rel=0.05)


def test_an_empty_set_and_a_parameter_that_is_missing():
    of = change()
    nothing = PackedMasks.of({name: torch.zeros(each.shape, dtype=torch.bool) for name, each in of.items()})
    assert matched_sets(nothing, of, nothing, 2, seed=0).reason == "the set is empty"
    with pytest.raises(UsageError, match="the change lacks 'other'"):
        matched_sets(PackedMasks.of({"other": torch.ones(2, dtype=torch.bool)}), of, nothing, 2, seed=0)
