"""TALL masks: their definition, and how much of their Jaccard index is the scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

import commonweight
from commonweight import Footprint
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.interventions import tall_masks


def change(*values, **facts):
    return Footprint("change", {f"{place}.weight": each for place, each in enumerate(values)}, 0, facts)


def drawn(seed, count=20000):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def index(changes, scale, **given):
    return commonweight.overlap(tall_masks(changes, scale, **given)).pooled[0, 1]


def test_a_weight_is_a_tasks_own_where_it_moved_it_farther_than_all_others_together(tmp_path):
    changes = {
        "a": change(tensor([4.0, 1.0, 0.0, 2.0]), tensor([1.0])),
        "b": change(tensor([1.0, 1.0, 0.0, 1.0]), tensor([3.0])),
        "c": change(tensor([1.0, -1.0, 0.0, 3.0]), tensor([-3.0])),
    }
    found = tall_masks(changes, 0.5)
    assert {task: [*each["0.weight"].tolist(), *each["1.weight"].tolist()] for task, each in found.items()} == {
        "a": [True, True, False, True, True],
        "b": [False, True, False, False, True],
        "c": [False, True, False, True, True],
    }
    found["a"].save(tmp_path / "a")
    kept = Footprint.load(tmp_path / "a")
    assert (kept.kind, kept.metadata["chosen_by"], kept.metadata["scale"]) == ("supermask", "tall", 0.5)
    assert kept.metadata["tasks"] == ["a", "b", "c"]


@pytest.mark.parametrize("scale", [1, 0.6, 0.4, 0.2])
def test_unrelated_changes_share_what_the_scale_says_and_the_null_finds_it(scale):
    a, b = drawn(1), drawn(2)
    by_chance = 2 / math.pi * (math.atan(1 / scale) - math.atan(scale))
    assert index({"a": change(a), "b": change(b)}, scale) == pytest.approx(by_chance, abs=0.01)
    same = {"a": change(a), "b": change(-a)}  # opposed, and still the same masks
    assert index(same, scale) == 1
    null = [index(same, scale, permutation=number) for number in (0, 1)]
    assert null == pytest.approx([by_chance] * 2, abs=0.01)
    assert scale == 1 or null[0] != null[1]


def test_a_permutation_stays_within_the_parameter():
    changes = {"a": change(torch.zeros(5), torch.ones(3)), "b": change(torch.ones(5), torch.zeros(3))}
    found = tall_masks(changes, 0.4, permutation=0)["a"]
    assert (found["0.weight"].sum(), found["1.weight"].sum()) == (0, 3)


def test_refusals():
    a = change(tensor([1.0]), initialisation="one")
    with pytest.raises(UsageError, match="the scale of a mask must be above 0, got 0"):
        tall_masks({"a": a, "b": a}, 0)
    with pytest.raises(UsageError, match="'b' must be a footprint of kind change, got fisher"):
        tall_masks({"a": a, "b": Footprint("fisher", {"0.weight": tensor([1.0])}, 1)}, 0.4)
    with pytest.raises(UsageError, match="expected at least two footprints"):
        tall_masks({"a": a}, 0.4)
    with pytest.raises(NotComparableError, match="initialisation differs"):
        tall_masks({"a": a, "b": change(tensor([1.0]), initialisation="other")}, 0.4)
