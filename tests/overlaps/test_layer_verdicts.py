"""Layer against layer: both differences have to agree, and one network decides nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from commonweight import Footprint, fisher, overlap
from commonweight.base.errors import UsageError
from commonweight.footprints.copies import RowCounts
from commonweight.footprints.footprint import Spread
from commonweight.verdicts import NEEDS


@pytest.fixture(scope="module")
def table():
    """Each input is of one of four blocks, which only the first layer's Fisher shows; the classes differ in bias."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    start = torch.nn.Sequential(torch.nn.Linear(12, 24), torch.nn.ReLU(), torch.nn.Linear(24, 6))
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.copy_(0.3 * normal(*parameter.shape))
    other = copy.deepcopy(start)
    with torch.no_grad():
        for layer in (other[0], other[2]):
            layer.weight.add_(0.03 * normal(*layer.weight.shape))
        other[2].bias.copy_(3 * normal(6))
    block = torch.randint(4, (800, 1), generator=generator)
    rows = [(normal(800, 12) * (torch.arange(12) // 3 == block), torch.randint(6, (800,), generator=generator))]
    return overlap({
        name: fisher(model, rows, folds=8) for name, model in {"a": start, "b": other, "again": start}.items()
    })


def differences(table, first, second, pair=("a", "b")):
    return [table.estimate(of, *pair, first) - table.estimate(of, *pair, second) for of in ("corrected", "above_null")]


def test_where_both_differences_agree_a_layer_shares_more(table):
    corrected, beyond = differences(table, "0", "2")
    assert corrected.low > 0
    assert beyond.low > 0
    found = table.verdict(("a", "b"), layers=("0", "2"))
    assert (found.answer, found.estimate, found.lacking) == ("shares more", corrected, ())
    assert {each.code: each.found for each in found.findings}["beyond the null too"] == {"beyond": beyond}
    elsewhere = {"shortcut learned", "larger than controls"}
    assert [need.code for need in found.findings] == [need.code for need in NEEDS if need.code not in elsewhere]
    less = table.verdict(("a", "b"), layers=("2", "0"))
    assert (less.answer, less.estimate) == ("shares less", -corrected)


def nulls_shifted(table, by):
    """The same overlaps with other nulls in layer 2."""

    class Shifted(type(table)):
        def estimate(self, of, a, b, layer=None, **given):
            found = super().estimate(of, a, b, layer, **given)
            return found + by if (of, layer) == ("above_null", "2") else found

    return Shifted(**{name: getattr(table, name) for name in table.__dataclass_fields__})


def test_where_only_one_of_them_says_so_it_cannot_say(table):
    corrected, beyond = differences(table, "0", "2")
    for shift in (beyond.value, 2 * beyond.value):  # beyond the null: no difference, and the other way round
        moved_null = table.estimate("above_null", "a", "b", "2") * 0 + shift
        found = nulls_shifted(table, moved_null).verdict(("a", "b"), layers=("0", "2"))
        assert found.answer == "inconclusive"
        assert [need.code for need in found.lacking] == ["beyond the null too"]
        assert found.estimate == corrected


def test_one_network_on_two_data_sets_decides_nothing(table):
    torch.manual_seed(3)
    start = torch.nn.Sequential(torch.nn.Linear(12, 24), torch.nn.Tanh(), torch.nn.Linear(24, 12))
    rows = torch.randn(600, 12)
    labels = torch.randint(12, (600,))
    of = {"a": rows, "b": torch.cat([rows[:, :6], rows[:, 6:].flip(1) * 2], 1)}
    found = overlap({name: fisher(start, [(x, labels)], folds=8) for name, x in of.items()})
    assert all(difference.high < 0 or difference.low > 0 for difference in differences(found, "0", "2")[:1])
    verdict = found.verdict(("a", "b"), layers=("0", "2"))
    assert verdict.answer == "inconclusive"
    assert "two networks" in [need.code for need in verdict.lacking]
    assert {need.code: need.found for need in verdict.lacking}["two networks"] == {"pairs": (("a", "b"),)}
    assert "two networks" not in [need.code for need in table.verdict(("a", "b"), layers=("0", "2")).lacking]


@pytest.mark.parametrize("layer", ["0", "2"])
def test_both_layers_are_asked_what_a_layer_is_asked(table, layer):
    few = replace(table, spread=dict(table.spread) | {"b": dict(table.spread["b"]) | {layer: Spread(12.0, 12.0)}})
    assert [need.code for need in few.verdict(("a", "b"), layers=("0", "2")).lacking] == ["effective sample size"]
    terms = dict(table.alignment.matrices)
    terms[f"{layer}.weight"] = np.stack([0.9**2 * (1 - np.eye(3)), np.ones((3, 3))])
    apart = replace(table, alignment=replace(table.alignment, matrices=terms))
    (lacking,) = apart.verdict(("a", "b"), layers=("0", "2")).lacking
    assert (lacking.code, lacking.found["layers"]) == ("shared initialisation", (layer,))


def test_what_tables_are_asked_is_asked_too(table):
    copied = replace(table, rows=dict(table.rows) | {"b": RowCounts(600, 300, 600)})
    assert [need.code for need in copied.verdict(("a", "b"), layers=("0", "2")).lacking] == ["distinct rows"]
    assert table.verdict(("a", "again"), layers=("0", "2")).lacking[0].code == "two footprints"


def test_what_is_no_question(table):
    for layers in (("0", "0"), ("0", None), (None, "2"), ("0",), "02"):
        with pytest.raises(UsageError, match=r"expected the names of two different layers, .*there are '0', '2'"):
            table.verdict(("a", "b"), layers=layers)
    for more in ({"layer": "0"}, {"second": ("a", "again"), "same_rows": True}):
        with pytest.raises(UsageError, match="two layers are compared for one pair: leave out"):
            table.verdict(("a", "b"), layers=("0", "2"), **more)
    with pytest.raises(KeyError, match="no layer 'head' in this table"):
        table.verdict(("a", "b"), layers=("0", "head"))
    with pytest.raises(UsageError, match="'a' against itself"):
        table.verdict(("a", "a"), layers=("0", "2"))
    with pytest.raises(UsageError, match="no footprint 'c'"):
        table.verdict(("a", "c"), layers=("0", "2"))
    vectors = overlap({name: Footprint("activity", {"0.w": torch.rand(6), "2.w": torch.rand(6)}, 8) for name in "ab"})
    with pytest.raises(UsageError, match="activity"):
        vectors.verdict(("a", "b"), layers=("0", "2"))
