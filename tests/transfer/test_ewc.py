"""The penalty of elastic weight consolidation: its value, its gradient, what it refuses, and that it works."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from reference import ewc as slow
from torch import nn
from torch.nn import functional as F

from commonweight.base.errors import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.footprint import Footprint
from commonweight.transfer.ewc import ewc_penalty


def network(seed=0, inputs=3, classes=4):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 5), nn.ReLU(), nn.Linear(5, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def copies(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def random_fisher(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Footprint(
        "fisher",
        {name: torch.randn(p.shape, generator=generator).square() for name, p in model.named_parameters()},
        count=8,
    )


def flat(tensors):
    return [value for tensor in tensors for value in tensor.detach().reshape(-1).tolist()]


@pytest.mark.parametrize("strength", [0, 1.0, 37.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_equal_the_loop(strength, dtype):
    model = network().to(dtype)
    anchor, footprint = copies(network(seed=7)), random_fisher(model)
    penalty = ewc_penalty(model, footprint, anchor, strength=strength)
    lists = [flat(model.parameters()), flat(footprint.tensors.values()), flat(anchor.values())]
    assert (penalty.shape, penalty.dtype) == ((), dtype)
    assert penalty.item() == pytest.approx(slow.penalty(*lists, strength), rel=1e-5)
    penalty.backward()
    found = flat(parameter.grad for parameter in model.parameters())
    assert found == pytest.approx(slow.gradient(*lists, strength), rel=1e-5, abs=1e-6)


def test_it_is_zero_at_the_anchor_alone():
    model = network()
    footprint, anchor = random_fisher(model), copies(model)
    assert ewc_penalty(model, footprint, anchor).item() == 0
    with torch.no_grad():
        model[2].bias += 1e-2
    assert ewc_penalty(model, footprint, anchor).item() > 0


def test_parameters_outside_the_footprint_are_free():
    model = network()
    anchor = copies(model)
    body = Footprint("fisher", {name: f for name, f in random_fisher(model).items() if name.startswith("0.")}, count=8)
    with torch.no_grad():
        model[2].weight += 1
    assert ewc_penalty(model, body, {name: anchor[name] for name in body.names}).item() == 0
    ewc_penalty(model, body, anchor).backward()
    assert model[2].weight.grad is None
    assert model[0].weight.grad is not None


def test_two_tasks_add_and_a_low_precision_model_is_charged_in_float32():
    model = network().to(torch.bfloat16)
    footprint, anchor = random_fisher(model), copies(network(seed=3))
    one = ewc_penalty(model, footprint, anchor)
    both = one + ewc_penalty(model, footprint, copies(network(seed=4)))
    assert one.dtype == torch.float32
    assert both.item() > one.item()
    both.backward()
    assert model[0].weight.grad.dtype == torch.bfloat16


def test_a_saved_footprint_serves(tmp_path):
    model = network()
    footprint, anchor = random_fisher(model), copies(network(seed=3))
    saved = Footprint.load(footprint.save(tmp_path / "earlier"))
    assert torch.equal(ewc_penalty(model, saved, anchor), ewc_penalty(model, footprint, anchor))


def test_an_anchor_that_moves_with_the_model_is_refused():
    model = network()
    with pytest.raises(UsageError, match=r"model's own 0\.weight, which moves with the model.*clone"):
        ewc_penalty(model, random_fisher(model), model.state_dict())
    ewc_penalty(model, random_fisher(model), {name: each.clone() for name, each in model.state_dict().items()})


def test_wrong_arguments_are_refused():
    model = network()
    footprint, anchor = random_fisher(model), copies(model)
    with pytest.raises(UsageError, match=r"kind fisher, got activity"):
        ewc_penalty(model, replace(footprint, kind="activity"), anchor)
    with pytest.raises(UsageError, match=r"must be a Footprint, got dict"):
        ewc_penalty(model, dict(footprint.items()), anchor)
    with pytest.raises(UsageError, match=r"anchor must be a Mapping, got Sequential; take copies by parameter name"):
        ewc_penalty(model, footprint, model)
    for strength in (-1.0, float("nan"), float("inf"), True, "1", 10**400, np.float32(-1), np.bool_(True), 1j):
        with pytest.raises(UsageError, match="strength must be a number of at least 0"):
            ewc_penalty(model, footprint, anchor, strength=strength)


def test_a_strength_may_be_any_real_number_but_no_tensor():
    model = network()
    footprint, anchor = random_fisher(model), copies(network(seed=7))
    expected = ewc_penalty(model, footprint, anchor, strength=2.0)
    for strength in (2, np.float32(2), np.float64(2), np.int64(2), Fraction(4, 2)):
        found = ewc_penalty(model, footprint, anchor, strength=strength)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    for tensor in (torch.tensor(2.0), np.array(2.0)):
        with pytest.raises(UsageError, match=r"number of at least 0, got (Tensor; take its \.item\(\)|ndarray)"):
            ewc_penalty(model, footprint, anchor, strength=tensor)


def test_a_penalty_that_could_hold_nothing_in_place_is_refused():
    model = network()
    footprint, anchor = random_fisher(model), copies(model)
    model.requires_grad_(False)
    with pytest.raises(UsageError, match=r"none of the 4 parameters of the footprint is trained.*unfreeze"):
        ewc_penalty(model, footprint, anchor)
    model[2].bias.requires_grad_(True)
    ewc_penalty(model, footprint, anchor).backward()
    with torch.no_grad():
        assert ewc_penalty(model, footprint, anchor).item() == 0  # a value alone


def test_what_does_not_fit_is_named():
    model = network()
    footprint, anchor = random_fisher(model), copies(model)
    with pytest.raises(NotComparableError, match=r"2\.bias \(not in the anchor; there are '0\.weight'"):
        ewc_penalty(model, footprint, {name: each for name, each in anchor.items() if name != "2.bias"})
    with pytest.raises(NotComparableError, match=r"0\.weight \(not in the model.*DistributedDataParallel"):
        ewc_penalty(nn.ModuleDict({"module": model}), footprint, anchor)
    with pytest.raises(NotComparableError, match=r"2\.weight \(shape \[6, 5\] in the model, \[4, 5\] in the footprint"):
        ewc_penalty(network(classes=6), footprint, anchor)


def test_what_is_not_finite_is_named():
    model = network()
    footprint, anchor = random_fisher(model), copies(model)
    for bad in (float("nan"), float("inf"), -1.0):
        damaged = replace(footprint, tensors={**footprint.tensors, "0.bias": torch.full((5,), bad)})
        with pytest.raises(IntegrityError, match=r"0\.bias of the footprint is negative, nan or infinite"):
            ewc_penalty(model, damaged, anchor)
    with pytest.raises(MeasurementError, match=r"0\.bias of the anchor is nan or infinite"):
        ewc_penalty(model, footprint, {**anchor, "0.bias": torch.full((5,), float("nan"))})
    far = {name: each + 1e19 for name, each in anchor.items()}
    with pytest.raises(MeasurementError, match="too large for its type"):
        ewc_penalty(model, footprint, far, strength=1e6)
    with torch.no_grad():
        model[0].bias[0] = float("inf")
    with pytest.raises(MeasurementError, match=r"0\.bias of the model.*diverged"):
        ewc_penalty(model, footprint, anchor)


def task(seed, permuted):
    """Four clouds in eight dimensions; the later task sees the dimensions in another order."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(4, 8, generator=generator)
    labels = torch.randint(4, (200,), generator=generator)
    inputs = centres[labels] + 0.8 * torch.randn(200, 8, generator=generator)
    order = torch.randperm(8, generator=generator)
    return (inputs[:, order], labels) if permuted else (inputs, labels)


def learn(model, inputs, labels, penalty=lambda: 0.0):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(150):
        optimiser.zero_grad()
        (F.cross_entropy(model(inputs), labels) + penalty()).backward()
        optimiser.step()


def accuracy(model, inputs, labels):
    return float((model(inputs).argmax(1) == labels).float().mean())


def wide(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))


def test_it_reduces_forgetting():
    kept = {"plain": [], "ewc": [], "ewc, later task": []}
    for seed in range(4):
        earlier, later = task(seed, permuted=False), task(seed, permuted=True)
        model = wide(seed)
        learn(model, *earlier)
        assert accuracy(model, *earlier) > 0.95
        importance, anchor, start = fisher(model, [earlier], fisher_type="exact"), copies(model), model.state_dict()
        start = {name: each.clone() for name, each in start.items()}
        learn(model, *later)
        kept["plain"].append(accuracy(model, *earlier))
        model.load_state_dict(start)
        learn(model, *later, lambda m=model, f=importance, a=anchor: ewc_penalty(m, f, a, strength=1000.0))
        kept["ewc"].append(accuracy(model, *earlier))
        kept["ewc, later task"].append(accuracy(model, *later))
    mean = {name: sum(values) / len(values) for name, values in kept.items()}
    assert mean["ewc"] > mean["plain"] + 0.15  # measured: 0.99 and 0.67
    assert all(ewc > plain + 0.05 for ewc, plain in zip(kept["ewc"], kept["plain"], strict=True))
    assert mean["ewc, later task"] > 0.95
