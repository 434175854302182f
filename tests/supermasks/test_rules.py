"""Which weights a rule keeps, how masks are packed, and where scores start."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.supermasks.bits import Bits, _on_device
from commonweight.supermasks.rules import Threshold, TopK, _least, _least_on_cpu, rule_of
from commonweight.supermasks.starts import fan_in, first_scores, signed_constant


def test_the_threshold_keeps_zero_and_not_what_is_below():
    scores = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 2.0, float("nan")])
    assert Threshold().mask(scores).tolist() == [False, False, True, True, True, True, False]


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    density=st.floats(0.01, 1),
    by=st.sampled_from(["score", "magnitude"]),
)
def test_top_k_keeps_the_exact_count_and_the_first_of_equals(values, density, by):
    mask = TopK(density, by).mask(torch.tensor(values, dtype=torch.float32))
    rank = [abs(value) if by == "magnitude" else value for value in values]
    expected = sorted(range(len(values)), key=lambda i: (-rank[i], i))[: round(density * len(values))]
    assert mask.nonzero().view(-1).tolist() == sorted(expected)


@pytest.mark.parametrize("by", ["score", "magnitude"])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.3, 0.5, 0.9, 0.9999, 1.0])
@pytest.mark.parametrize("kind", ["normal", "few values", "sorted", "one column large"])
def test_large_weights_are_ranked_exactly_too(by, density, kind):
    scores = torch.randn(211, 180, generator=torch.Generator().manual_seed(1))
    if kind == "few values":
        scores = (scores * 2).round()
    elif kind == "sorted":
        scores = scores.view(-1).sort().values.view_as(scores)
    elif kind == "one column large":
        scores[:, 0] += 10
    mask = TopK(density, by).mask(scores)
    rank = (scores.abs() if by == "magnitude" else scores).view(-1)
    order = rank.sort(descending=True, stable=True).indices[: round(density * scores.numel())]
    expected = torch.zeros(scores.numel(), dtype=torch.bool)
    expected[order] = True
    assert torch.equal(mask.view(-1), expected)


def test_a_sample_that_misleads_changes_nothing():
    scores = torch.zeros(30_000)
    scores[::97] = 5  # all that a sample with this step would see
    scores[1] = 1
    assert TopK(0.5).mask(scores).sum() == 15_000
    assert TopK(0.5).mask(scores)[1]


def test_low_precision_and_memory_format_do_not_change_the_choice():
    scores = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2)).bfloat16()
    rule = TopK(0.37)
    mask = rule.mask(scores)
    assert mask.sum() == round(0.37 * scores.numel())
    assert torch.equal(mask, rule.mask(scores.float()))
    assert torch.equal(mask, rule.mask(scores.to(memory_format=torch.channels_last)))
    ties = torch.zeros(8, 4, 3, 3)
    assert torch.equal(rule.mask(ties), rule.mask(ties.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("rule", [Threshold(), TopK(0.3), TopK(0.3, "magnitude")])
@pytest.mark.parametrize("ties", [False, True])
def test_a_mask_is_written_where_it_is_wanted(rule, ties):
    scores = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(6))
    scores = scores.round() if ties else scores
    for kind in (torch.float32, torch.bfloat16, torch.bool):
        out = torch.empty(8, 4, 3, 3, dtype=kind).to(memory_format=torch.channels_last)
        assert rule.mask(scores, out=out) is out
        assert torch.equal(out.bool(), rule.mask(scores))
        assert ((out == 0) | (out == 1)).all()


@pytest.mark.parametrize("entries", [10, 30_000])
def test_nan_cannot_be_ranked(entries):
    scores = torch.randn(entries)
    scores[3] = float("nan")
    with pytest.raises(MeasurementError, match="scores hold nan"):
        TopK(0.5).mask(scores)


def test_what_no_rule_is():
    for density in (0, -0.1, 1.5, True, "half", float("nan")):
        with pytest.raises(UsageError, match="fraction kept"):
            TopK(density)
    with pytest.raises(UsageError, match='"score" or "magnitude"'):
        TopK(0.5, by="size")
    with pytest.raises(UsageError, match=r"keeps none of the 10 entries of fc\.weight"):
        TopK(0.01).check("fc.weight", 10)
    TopK(0.1).check("fc.weight", 10)
    for rule in (Threshold(), TopK(0.2), TopK(0.2, "magnitude")):
        assert rule_of(rule.spec()) == rule
    with pytest.raises(IntegrityError, match="damaged"):
        rule_of({"rule": "roulette"})


@pytest.mark.parametrize("shape", [(), (1,), (8,), (3, 5), (2, 3, 3, 3)])
def test_bits_hold_the_mask_and_an_eighth_of_its_bytes(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.4
    bits = Bits.of(mask)
    assert torch.equal(bits.unpack(), mask)
    assert bits.count() == mask.sum()
    assert bits.nbytes == -(-mask.numel() // 8)
    assert bits == Bits.of(mask.clone())
    assert bits != Bits.of(~mask)
    assert bits != Bits.of(mask[None])
    assert np.unpackbits(bits.packed.numpy()).sum() == mask.sum()  # unused bits are 0


def test_the_ways_for_other_devices_give_the_same():
    packed = torch.arange(256, dtype=torch.uint8)
    for n in (2048, 2043):
        assert torch.equal(_on_device(packed, n), Bits(packed[: -(-n // 8)], (n,)).unpack())
    scores = (torch.randn(30_000, generator=torch.Generator().manual_seed(4)) * 50).round()
    for keep in (1, 777, 15_000, 29_999, 30_000):
        assert _least(scores, keep) == _least_on_cpu(scores, keep)
        assert TopK(keep / 30_000).mask(scores).sum() == keep
    with pytest.raises(MeasurementError, match="scores hold nan"):
        _least(torch.tensor([1.0, float("nan"), 0.0]), 1)


def test_bits_refuse_what_does_not_fit():
    with pytest.raises(UsageError, match="boolean mask"):
        Bits.of(torch.ones(3))
    with pytest.raises(UsageError, match="expected 2 bytes"):
        Bits(torch.zeros(1, dtype=torch.uint8), (3, 3))
    channels_last = (torch.rand(2, 3, 4, 4) < 0.5).to(memory_format=torch.channels_last)
    assert torch.equal(Bits.of(channels_last).unpack(), channels_last)


def test_draws_depend_on_seed_weight_and_task_alone():
    shape = torch.Size([31, 20])
    first = first_scores(shape, 20, 0, "fc.weight", 0)
    assert torch.equal(first, first_scores(shape, 20, 0, "fc.weight", 0))
    others = [(1, "fc.weight", 0), (0, "fc2.weight", 0), (0, "fc.weight", 1), (0, "fc.weight", None)]
    for seed, name, task in others:
        assert not torch.equal(first, first_scores(shape, 20, seed, name, task))
    assert abs(np.corrcoef(first.view(-1), first_scores(shape, 20, 0, "fc.weight", 1).view(-1))[0, 1]) < 0.2
    assert not torch.equal(signed_constant(shape, 20, 0, "a"), signed_constant(shape, 20, 1, "a"))


def test_draws_stay_the_same_from_release_to_release():
    assert first_scores(torch.Size([3]), 4, 7, "fc.weight", 2).tolist() == pytest.approx(
        [0.27603763341903687, -0.1299985647201538, 0.25630849599838257], abs=1e-7
    )
    assert (signed_constant(torch.Size([12]), 2, 7, "fc.weight") > 0).tolist() == [
        bool(int(sign)) for sign in "100110001011"
    ]


def test_draws_have_the_stated_distribution():
    scores = first_scores(torch.Size([200, 100]), 100, 0, "w", 0)
    assert scores.abs().max() <= 0.1
    assert scores.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert (scores >= 0).float().mean() == pytest.approx(0.5, abs=0.01)
    weights = signed_constant(torch.Size([200, 100]), 50, 0, "w")
    assert weights.abs().unique().tolist() == pytest.approx([0.2])
    assert (weights > 0).float().mean() == pytest.approx(0.5, abs=0.01)


def test_fan_in_counts_the_products_of_one_output():
    assert fan_in(nn.Linear(7, 3)) == 7
    assert fan_in(nn.Conv1d(6, 4, 5, groups=2)) == 15
    assert fan_in(nn.Conv3d(2, 4, (1, 2, 3))) == 12
    layer = nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2, bias=False)
    counted = nn.functional.conv_transpose2d(
        torch.ones(1, 4, 20, 20), torch.ones_like(layer.weight), stride=2, groups=2
    )
    assert fan_in(layer) == counted[0, 0, 15, 15]
