"""Footprints in a fusion: of these weights, in this order, measured alike; and how they are scaled."""

import math
from dataclasses import replace

import pytest
import torch
from fusion.conftest import moved, small
from torch import nn

from commonweight import Footprint, fisher, fuse
from commonweight.base import IntegrityError, MeasurementError, NotComparableError, UsageError


@pytest.fixture
def pair():
    return [moved(small(), 1), moved(small(), 2)]


def data(column=0):
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    return [(x, (x[:, column] > 0).long())]


@pytest.fixture
def footprints(pair):
    return [fisher(model, data(i)) for i, model in enumerate(pair)]


def weighed(pair, footprints, **options):
    return fuse(pair, method="fisher", footprints=footprints, **options)


def constant(model, value):
    return Footprint("fisher", {name: torch.full_like(p, value) for name, p in model.named_parameters()}, count=1)


def close(a, b, **bounds):
    return all(torch.allclose(x, b.state_dict()[key], **bounds) for key, x in a.state_dict().items())


def test_equal_constant_fishers_give_the_average(pair):
    equal = [constant(model, 3.0) for model in pair]
    assert close(weighed(pair, equal), fuse(pair), atol=1e-7)
    uneven = [constant(pair[0], 3.0), constant(pair[1], 6.0)]
    assert close(weighed(pair, uneven), fuse(pair), atol=1e-7)  # scales do not count
    assert close(weighed(pair, uneven, normalize="trace"), fuse(pair), atol=1e-7)
    raw = weighed(pair, uneven, normalize="none")
    assert close(raw, fuse(pair, [1 / 3, 2 / 3]), atol=1e-6)
    assert not close(raw, fuse(pair), atol=1e-4)


@pytest.mark.parametrize("normalize", ["norm", "trace"])
def test_the_scale_of_a_fisher_does_not_count(pair, footprints, normalize):
    scaled = replace(footprints[1], tensors={key: 1000 * f for key, f in footprints[1].items()})
    one = weighed(pair, footprints, normalize=normalize)
    assert close(one, weighed(pair, [footprints[0], scaled], normalize=normalize), atol=1e-6)
    raw = weighed(pair, [footprints[0], scaled], normalize="none", floor=1e-12)
    assert not close(one, raw, atol=1e-4)


def test_dead_weights_get_the_plain_average(pair, footprints):
    dead = [
        replace(f, tensors={key: torch.zeros_like(t) if key == "0.bias" else t for key, t in f.items()})
        for f in footprints
    ]
    fused, plain = weighed(pair, dead, weights=[0.3, 0.7]), fuse(pair, [0.3, 0.7])
    assert torch.allclose(fused[0].bias, plain[0].bias, atol=1e-7)
    assert not torch.allclose(fused[0].weight, plain[0].weight, atol=1e-5)
    assert close(weighed(pair, footprints, weights=[0.3, 0.7], floor=1e9), plain, atol=1e-7)


def test_footprints_and_models_in_double_precision_stay_as_they_are():
    models = [moved(small(dtype=torch.float64), seed) for seed in (1, 2)]
    measured = [fisher(model, [(x.double(), y) for x, y in data()]) for model in models]
    before = [{key: tensor.clone() for key, tensor in f.items()} for f in measured]
    states = [{key: tensor.clone() for key, tensor in model.state_dict().items()} for model in models]
    assert weighed(models, measured)[0].weight.dtype == torch.float64
    for f, kept in zip(measured, before, strict=True):
        assert all(torch.equal(f[key], tensor) for key, tensor in kept.items())
    for model, kept in zip(models, states, strict=True):
        assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in kept.items())


def test_the_order_does_not_matter(pair, footprints):
    one = weighed(pair, footprints, weights=[0.3, 0.7])
    other = weighed(pair[::-1], footprints[::-1], weights=[0.7, 0.3])
    assert close(one, other, atol=1e-6)


def test_footprints_in_the_wrong_order_are_noticed(pair, footprints):
    with pytest.raises(
        NotComparableError, match=r"'footprint 1' stands beside 'model 1', .* those of 'model 2'\. Give"
    ):
        weighed(pair, footprints[::-1])


def test_footprints_of_other_weights_are_noticed(pair, footprints):
    with torch.no_grad():
        pair[1][0].weight[0, 0] += 1e-3
    with pytest.raises(NotComparableError, match=r"'footprint 2' .*other weights\. Measure this model"):
        weighed(pair, footprints)


def test_a_footprint_that_was_measured_in_another_type_is_recognised(pair):
    half = [model.to(torch.bfloat16) for model in pair]
    measured = [fisher(model.float(), data()) for model in half]
    half = [model.to(torch.bfloat16) for model in half]
    fuse(half, method="fisher", footprints=measured)
    full = [moved(small(), 1), moved(small(), 2)]
    rounded = [
        fisher(moved(small(), seed).to(torch.bfloat16), [(x.bfloat16(), y) for x, y in data()]) for seed in (1, 2)
    ]
    fuse(full, method="fisher", footprints=rounded)


def test_parameters_no_fisher_covers_are_averaged_plainly_and_named(pair, heard):
    part = [fisher(model, data(), include="0") for model in pair]
    fused = weighed(pair, part, weights=[0.3, 0.7], note=heard.append)
    assert heard == ["No Fisher covers these, so their average is the plain one: 2.weight, 2.bias."]
    assert torch.allclose(fused[2].weight, fuse(pair, [0.3, 0.7])[2].weight, atol=1e-7)


def test_a_parameter_that_only_some_cover_is_an_error(pair, footprints):
    part = [footprints[0], fisher(pair[1], data(1), include="0")]
    with pytest.raises(NotComparableError, match=r"2 differences: 2\.weight \(only in 'footprint 1'\); 2\.bias"):
        weighed(pair, part)
    other = Footprint("fisher", {"head.weight": torch.ones(2)}, count=1)
    with pytest.raises(
        NotComparableError, match=r"head\.weight \(in 'footprint 1' and 'footprint 2', not in the models\)"
    ):
        weighed(pair, [other, other])
    wide = Footprint("fisher", {"0.bias": torch.ones(5)}, count=1)
    with pytest.raises(NotComparableError, match=r"0\.bias \(shape \[5\] in 'footprint 1' .*, \[4\] in the models\)"):
        weighed(pair, [wide, wide])


def test_fishers_measured_differently_are_refused(pair, footprints):
    mixed = [footprints[0], fisher(pair[1], data(1), fisher_type="exact")]
    with pytest.raises(
        NotComparableError,
        match=r"not measured alike, 1 difference: Fisher type is empirical in 'footprint 1', exact in",
    ):
        weighed(pair, mixed)
    mask = Footprint("supermask", dict(footprints[0].items()), count=1)
    with pytest.raises(
        NotComparableError, match="'footprint 2' is a footprint of kind supermask; expected kind fisher"
    ):
        weighed(pair, [footprints[0], mask])


def test_fishers_that_hold_nothing_or_nonsense_are_refused(pair):
    good = constant(pair[0], 1.0)
    for normalize in ("norm", "trace", "none"):
        with pytest.raises(MeasurementError, match=r"the Fisher of 'footprint 2' is zero everywhere"):
            weighed(pair, [good, constant(pair[1], 0.0)], normalize=normalize)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(IntegrityError, match=r"0\.weight of 'footprint 2' is negative, nan or infinite"):
            weighed(pair, [good, constant(pair[1], bad)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 0.0}, "floor must be above 0, got 0"),
        ({"floor": -1}, "floor must be above 0"),
        ({"floor": math.nan}, "floor must be a finite number"),
        ({"normalize": "l2"}, "normalize must be one of norm, trace, none, got 'l2'"),
        ({"weights": [1.5, -0.5]}, r"fisher takes weights of at least 0, got -0\.5\. .*task arithmetic"),
        ({"weights": [1.0, 1.0]}, r"with the sum 2.*divided by it they are 0\.5, 0\.5"),
        ({"scale": 2.0}, "scale is for task arithmetic, and the method is fisher"),
    ],
)
def test_numbers_that_do_not_serve(pair, footprints, options, message):
    with pytest.raises(UsageError, match=message):
        weighed(pair, footprints, **options)


def test_footprints_that_do_not_serve(pair, footprints, tmp_path):
    with pytest.raises(UsageError, match="one footprint per model, got 1 for 2"):
        weighed(pair, footprints[:1])
    with pytest.raises(UsageError, match=r"expected a list of footprints, .* got a single one"):
        weighed(pair, footprints[0])
    with pytest.raises(UsageError, match="footprint 1 must be a Footprint or a folder, got dict"):
        weighed(pair, [{}, {}])
    with pytest.raises(UsageError, match="expected the folder of a footprint"):
        weighed(pair, [tmp_path / "absent", tmp_path / "absent"])
    for number, footprint in enumerate(footprints):
        footprint.save(tmp_path / str(number))
    read = weighed(pair, [tmp_path / "0", str(tmp_path / "1")])
    assert close(read, weighed(pair, footprints), atol=0)
    assert isinstance(read, nn.Sequential)
