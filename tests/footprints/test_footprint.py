"""A footprint in memory: frozen, ordered, with traces by any module path."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from diagonal_fisher.small import examples, gap, in_batches, small_mlp
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

import commonweight
from commonweight import Footprint
from commonweight.base import UsageError
from commonweight.footprints.footprint import Fold, Spread, is_under, layer_of


def a_footprint(**changes):
    tensors = {
        "scale": tensor([1.0, 2.0]),
        "encoder.1.weight": tensor([[1.0, 3.0], [0.0, 4.0]]),
        "encoder.1.bias": tensor([5.0, 6.0]),
        "encoder.10.weight": tensor([100.0]),
        "head.weight": tensor([[7.0]]),
    }
    return Footprint(**{"kind": "fisher", "tensors": tensors, "count": 4} | changes)


def test_is_frozen():
    footprint = a_footprint()
    with pytest.raises(dataclasses.FrozenInstanceError, match="count"):
        footprint.count = 5
    with pytest.raises(dataclasses.FrozenInstanceError, match="tensors"):
        footprint.tensors = {}
    assert footprint.count == 4


def test_is_a_mapping_in_the_order_of_the_model():
    footprint = a_footprint()
    assert footprint.names == ("scale", "encoder.1.weight", "encoder.1.bias", "encoder.10.weight", "head.weight")
    assert tuple(footprint) == footprint.names
    assert len(footprint) == 5
    assert "scale" in footprint
    assert "encoder" not in footprint
    assert footprint["encoder.1.bias"].tolist() == [5.0, 6.0]


def test_layers_own_parameters_and_come_once_each():
    assert a_footprint().layers == ("scale", "encoder.1", "encoder.10", "head")


@pytest.mark.parametrize(
    ("path", "total"),
    [(None, 129.0), ("", 129.0), ("encoder", 119.0), ("encoder.1", 19.0), ("encoder.1.bias", 11.0), ("scale", 3.0)],
)
def test_trace_overall_by_module_path_and_by_parameter(path, total):
    assert a_footprint().trace(path) == total


def test_trace_of_a_layer_does_not_reach_into_names_that_merely_start_alike():
    footprint = a_footprint()
    assert footprint.trace("encoder.1") == footprint.trace("encoder") - footprint.trace("encoder.10")
    assert not is_under("encoder.10.weight", "encoder.1")
    assert is_under("encoder.10.weight", "encoder.10")
    with pytest.raises(
        UsageError, match=r"no layer 'enc' in this footprint; there are 'scale', 'encoder.1', 'encoder.10', 'head'"
    ):
        footprint.trace("enc")


def test_the_layers_traces_add_to_the_whole():
    footprint = a_footprint()
    assert sum(map(footprint.trace, footprint.layers)) == footprint.trace()


def test_trace_is_summed_in_float64():
    many = torch.full((100, 100), 60000.0, dtype=torch.float16)
    assert math.isinf(float(many.sum()))  # its own type overflows
    assert a_footprint(tensors={"w": many}).trace() == pytest.approx(float(many[0, 0]) * 10000, rel=1e-12)


@given(st.lists(st.text("abc1", min_size=1), min_size=1, max_size=4).map(".".join))
def test_layer_of_is_the_path_above(name):
    layer = layer_of(name)
    assert is_under(name, layer)
    assert (
        layer == name if "." not in name else name.startswith(layer + ".") and name.count(".") == layer.count(".") + 1
    )
    assert not is_under(layer + "x", layer)


def test_flat_is_one_vector_in_the_order_of_names():
    footprint = a_footprint()
    assert footprint.flat().tolist() == [1, 2, 1, 3, 0, 4, 5, 6, 100, 7]
    turned = a_footprint(tensors=dict(reversed(footprint.tensors.items())))
    assert turned.flat().tolist() == [7, 100, 5, 6, 1, 3, 0, 4, 1, 2]
    transposed = a_footprint(tensors={"w": footprint["encoder.1.weight"].t()})
    assert transposed.flat().tolist() == [1, 0, 3, 4]


def test_effective_sample_size_comes_from_the_spread_of_the_whole():
    assert a_footprint(spread={"": Spread(6.0, 12.0), "head": Spread(6.0, 36.0)}).effective_sample_size == 3.0
    assert math.isnan(a_footprint().effective_sample_size)
    assert math.isnan(a_footprint(spread={"": Spread(0.0, 0.0)}).effective_sample_size)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.integers(0, 20))
def test_effective_sample_size_lie_between_one_and_all(traces, cut):
    spreads = [Spread(t, t * t) for t in traces]
    whole = sum(spreads[1:], spreads[0])
    assert 1 - 1e-9 <= whole.effective_sample_size <= len(traces) * (1 + 1e-9)
    parts = [sum(part, Spread(0.0, 0.0)) for part in (spreads[:cut], spreads[cut:])]
    assert (parts[0] + parts[1]).effective_sample_size == pytest.approx(whole.effective_sample_size)
    equal = sum([Spread(2.0, 4.0)] * len(traces), Spread(0.0, 0.0))
    assert equal.effective_sample_size == pytest.approx(len(traces))


def test_repr_says_what_it_is_and_prints_no_tensor():
    assert repr(a_footprint()) == "Footprint(kind='fisher', parameters=5, layers=4, count=4)"
    whole = a_footprint(metadata={"fisher_type": "mc"}, folds=(Fold(2, {}), Fold(2, {})))
    assert repr(whole) == "Footprint(kind='fisher', parameters=5, layers=4, count=4, fisher_type='mc', folds=2)"


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(KeyError) as caught:
        a_footprint()["head.wieght"]
    assert caught.value.args[0] == (
        "no parameter 'head.wieght' in this footprint; there are 'scale', 'encoder.1.weight', 'encoder.1.bias', "
        "'encoder.10.weight', 'head.weight'; did you mean 'head.weight'?"
    )
    with pytest.raises(KeyError, match=r"no parameter 'v' in this footprint; there are 'w'\W$"):  # shown quoted
        a_footprint(tensors={"w": tensor([1.0])})["v"]


def test_refuses_another_kind_and_no_tensors():
    with pytest.raises(
        UsageError, match="kind must be one of fisher, saliency, change, adam_v, supermask, activity, got 'mask'"
    ):
        a_footprint(kind="mask")
    with pytest.raises(UsageError, match="needs at least one tensor, got none"):
        a_footprint(tensors={})


def test_a_measured_footprint_says_how_it_came_about():
    x, y = examples()
    footprint = commonweight.fisher(small_mlp(), in_batches((x, y), 3), seed=5, metadata={"task": "halves"})
    assert (footprint.kind, footprint.count) == ("fisher", 8)
    assert footprint.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    known = footprint.metadata
    assert (known["fisher_type"], known["loss"], known["seed"], known["task"]) == (
        "empirical",
        "classification",
        5,
        "halves",
    )
    assert known["folds"] == {"count": 1, "map": "blake2b-64(decimal source row) mod folds"}
    assert (known["generic"], known["unused"]) == ({}, [])
    assert known["model"] == {
        "class": "Sequential",
        "weights": 53,
        "measured_weights": 53,
        "measured_parameters": 4,
        "trainable_parameters": 4,
        "dtypes": ["torch.float64"],
    }
    assert known["versions"]["commonweight"] == commonweight.__version__
    assert known["versions"]["torch"] == torch.__version__
    assert known["samples"] is None
    sampled = commonweight.fisher(small_mlp(), [(x, y)], fisher_type="mc", samples=2)
    assert (sampled.metadata["samples"], sampled.metadata["fisher_type"]) == (2, "mc")


def test_reads_like_a_mapping():
    footprint = a_footprint()
    assert list(footprint.keys()) == list(footprint) == list(footprint.names)
    assert all(footprint[name] is tensor for name, tensor in footprint.items())


def test_metadata_cannot_say_how_it_was_measured():
    batch = examples()
    with pytest.raises(UsageError, match="may not set fisher_type, seed: these are recorded as they were measured"):
        commonweight.fisher(small_mlp(), [batch], metadata={"seed": 3, "fisher_type": "exact"})
    with pytest.raises(UsageError, match="must be a mapping"):
        commonweight.fisher(small_mlp(), [batch], metadata={"model": "mine"})
    known = commonweight.fisher(small_mlp(), [batch], include="0", metadata={"model": {"name": "mine"}}).metadata
    assert (known["model"]["name"], known["model"]["class"]) == ("mine", "Sequential")
    assert (known["model"]["measured_parameters"], known["model"]["trainable_parameters"]) == (2, 4)
    assert (known["include"], known["exclude"]) == (["0"], None)


def test_the_trace_is_the_mean_of_the_examples_traces():
    x, y = examples()
    footprint = commonweight.fisher(small_mlp(), [(x, y)])
    for layer in ("", "0", "2"):
        assert footprint.spread[layer].total / footprint.count == pytest.approx(footprint.trace(layer), rel=1e-9)
    assert 1 < footprint.effective_sample_size < 8


def test_measured_tensors_are_independent_of_the_model():
    model, batch = small_mlp(), examples()
    footprint = commonweight.fisher(model, [batch])
    before = {name: value.clone() for name, value in footprint.tensors.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert gap(footprint, before) == 0
    assert gap(commonweight.fisher(model, [batch]), before) > 1e-3


def test_only_what_include_and_exclude_leave_is_measured_and_its_numbers_are_the_same():
    model, batch = small_mlp(), examples()
    whole = commonweight.fisher(model, [batch])
    part = commonweight.fisher(model, [batch], include=["*.weight", "2"], exclude="0.weight")
    assert part.names == ("2.weight", "2.bias")
    assert gap(part, {name: whole[name] for name in part}) < 1e-12
    assert commonweight.fisher(model, [batch], exclude="2").names == ("0.weight", "0.bias")


def test_the_weight_sample_is_of_the_weights_and_the_same_places_for_the_same_shape():
    batch = examples(width=60)
    one, two = (torch.nn.Sequential(torch.nn.Linear(60, 40), torch.nn.Linear(40, 3)).double() for _ in range(2))
    two.load_state_dict(one.state_dict())
    first, second = (commonweight.fisher(model, [batch]).weight_sample for model in (one, two))
    assert set(first) == {"0.weight", "1.weight"}
    assert len(first["0.weight"]) == 1024
    assert torch.equal(first["1.weight"], one[1].weight.detach().float().flatten())
    assert torch.isin(first["0.weight"], one[0].weight.detach().float()).all()
    assert torch.equal(first["0.weight"], second["0.weight"])
    with torch.no_grad():
        two[0].weight.add_(1.0)
    moved = commonweight.fisher(two, [batch]).weight_sample["0.weight"]
    assert torch.allclose(moved, first["0.weight"] + 1)
