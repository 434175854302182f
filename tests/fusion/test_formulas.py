"""The formulas equal slow loops over plain lists, and keep their laws."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import fusion as slow

from commonweight.fusion import Entries
from commonweight.fusion.methods.average import Average
from commonweight.fusion.methods.fisher import DEAD, FisherAverage
from commonweight.fusion.methods.task_arithmetic import TaskArithmetic

SIZE = 7


class Weighed(NamedTuple):
    values: torch.Tensor
    dead: int


def average(theta, weights):
    return Average().tensor(Entries(theta, weights))


def task_arithmetic(base, theta, weights, scale):
    return TaskArithmetic(scale=scale).tensor(Entries(theta, weights, base=base))


def fisher_average(theta, fishers, weights, floor):
    method = FisherAverage(floor=floor)
    return Weighed(method.tensor(Entries(theta, weights, fishers=fishers)), method.counts[DEAD])


def tensors(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def importances(count, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    found = [torch.randn(SIZE, generator=generator, dtype=torch.float64).square() for _ in range(count)]
    for fisher in found:
        fisher[0] = 0.0
    return found


def lists(found):
    return [tensor.tolist() for tensor in found]


def summing_to_one(count, seed, *, negative):
    generator = torch.Generator().manual_seed(2000 + seed)
    raw = torch.rand(count, generator=generator, dtype=torch.float64)
    if negative and count > 1:
        raw[0] -= 1.5
    if abs(float(raw.sum())) < 0.1:
        raw[0] += 1
    return (raw / raw.sum()).tolist()


cases = given(count=st.integers(1, 5), seed=st.integers(0, 10_000))


@cases
@settings(max_examples=60, deadline=None)
def test_they_equal_the_loops(count, seed):
    theta, fishers, (base,) = tensors(count, seed), importances(count, seed), tensors(1, seed + 1)
    weights = summing_to_one(count, seed, negative=True)
    assert average(theta, weights).tolist() == pytest.approx(slow.average(lists(theta), weights), abs=1e-12)
    scale = 0.3 + seed % 5
    expected = slow.task_arithmetic(base.tolist(), lists(theta), weights, scale)
    assert task_arithmetic(base, theta, weights, scale).tolist() == pytest.approx(expected, abs=1e-10)
    shares = summing_to_one(count, seed, negative=False)
    found = fisher_average(theta, fishers, shares, 0.3)
    values, dead = slow.fisher_average(lists(theta), lists(fishers), shares, 0.3, "none")
    assert found.values.tolist() == pytest.approx(values, abs=1e-12)
    assert found.dead == dead >= 1


@cases
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_models_does_not_matter(count, seed):
    theta, fishers, (base,) = tensors(count, seed), importances(count, seed), tensors(1, seed + 1)
    weights = summing_to_one(count, seed, negative=False)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()

    def permuted(found):
        return [found[i] for i in order]

    pairs = [
        (average(theta, weights), average(permuted(theta), permuted(weights))),
        (
            task_arithmetic(base, theta, weights, 2.0),
            task_arithmetic(base, permuted(theta), permuted(weights), 2.0),
        ),
        (
            fisher_average(theta, fishers, weights, 1e-6).values,
            fisher_average(permuted(theta), permuted(fishers), permuted(weights), 1e-6).values,
        ),
    ]
    for one, other in pairs:
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    if count > 1:  # and it does where only the models change places
        assert not torch.allclose(
            average(theta, [1.0, *[0.0] * (count - 1)]), average(theta[::-1], [1.0, *[0.0] * (count - 1)])
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_models_give_themselves_bit_for_bit(dtype):
    (theta,) = tensors(1, 0, dtype)
    fishers = importances(3, 0)
    third = [1 / 3] * 3
    assert torch.equal(average([theta] * 3, third).to(dtype), theta)
    assert torch.equal(fisher_average([theta] * 3, fishers, third, 1e-6).values.to(dtype), theta)
    assert torch.equal(task_arithmetic(theta, [theta] * 3, third, 5.0).to(dtype), theta)


def test_a_model_of_weight_0_changes_no_bit():
    a, b, c = tensors(3, 5, torch.float32)
    fishers = importances(3, 5)
    assert torch.equal(average([a, b, c], [0.0, 1.0, 0.0]), b)
    assert torch.equal(fisher_average([a, b, c], fishers, [0.0, 0.0, 1.0], 1e-6).values.float(), c)
    assert torch.equal(average([a, b, c], [0.5, 0.5, 0.0]), average([a, b], [0.5, 0.5]))
    assert not torch.equal(average([a, b, c], [0.5, 0.25, 0.25]), average([a, b], [0.5, 0.5]))


def test_the_average_is_linear_in_the_weights():
    theta = tensors(3, 6)
    one, other = [0.2, 0.3, 0.5], [0.7, -0.1, 0.4]
    between = [0.25 * v + 0.75 * w for v, w in zip(one, other, strict=True)]
    expected = 0.25 * average(theta, one) + 0.75 * average(theta, other)
    assert torch.allclose(average(theta, between), expected, atol=1e-14)


def test_equal_constant_fishers_give_the_average_and_others_do_not():
    theta, weights = tensors(3, 7), [0.2, 0.3, 0.5]
    constant = [torch.full((SIZE,), 3.0, dtype=torch.float64)] * 3
    assert torch.allclose(fisher_average(theta, constant, weights, 1e-6).values, average(theta, weights), atol=1e-14)
    uneven = [constant[0], constant[1] * 2, constant[2]]
    assert not torch.allclose(fisher_average(theta, uneven, weights, 1e-6).values, average(theta, weights), atol=1e-3)


def test_task_arithmetic_with_weights_that_sum_to_1_and_scale_1_is_the_average():
    theta, weights, (base,) = tensors(3, 8), [0.2, 0.3, 0.5], tensors(1, 9)
    assert torch.allclose(task_arithmetic(base, theta, weights, 1.0), average(theta, weights), atol=1e-14)
    assert not torch.allclose(task_arithmetic(base, theta, weights, 0.5), average(theta, weights), atol=1e-3)
    assert torch.equal(task_arithmetic(base, theta, weights, 0.0), base)
    assert torch.equal(task_arithmetic(base, theta, [0.0] * 3, 1.0), base)


def test_dead_weights_get_the_plain_average_and_live_ones_do_not():
    a, b = tensors(2, 10)
    f, g = importances(2, 10)
    found = fisher_average([a, b], [f, g], [0.3, 0.7], 1e-6)
    plain = average([a, b], [0.3, 0.7])
    assert found.dead == 1
    assert torch.allclose(found.values[0], plain[0], atol=1e-15)
    assert not torch.isclose(found.values[1:], plain[1:], atol=1e-6).any()
    everywhere = fisher_average([a, b], [f, g], [0.3, 0.7], 1e9)
    assert everywhere.dead == SIZE
    assert torch.allclose(everywhere.values, plain, atol=1e-15)


def test_tiny_fishers_do_not_underflow():
    theta = [torch.tensor([1.0]), torch.tensor([2.0])]
    tiny = [torch.tensor([3e-40], dtype=torch.float64), torch.tensor([1e-40], dtype=torch.float64)]
    assert fisher_average(theta, tiny, [0.5, 0.5], 1e-300).values.item() == pytest.approx(1.25)


def test_halves_are_averaged_in_float32():
    large = torch.full((SIZE,), 60000.0, dtype=torch.float16)
    assert average([large, large], [3.0, -2.0]).dtype == torch.float32
    assert torch.equal(average([large, -large], [0.5, 0.5]), torch.zeros(SIZE))
    near = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)  # neighbours in bfloat16
    fused = average([near[:1], near[1:]], [0.5, 0.5])
    assert fused.item() == math.fsum([1.0, 1.0078125]) / 2
