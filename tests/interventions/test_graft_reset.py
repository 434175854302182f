"""Graft and reset: the laws, closed forms on a linear model, and weights that come back bit for bit."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn

from commonweight.base.errors import NotComparableError
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions.graft_reset import Swappable
from commonweight.interventions.measure import row_scores


def two(dtype=torch.float32):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)
    model = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return start, model


def masks(model, keep):
    return PackedMasks.of({name: torch.full(each.shape, keep) for name, each in model.named_parameters()})


def state(model):
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_graft_of_all_is_the_model_and_reset_of_all_is_the_base(dtype):
    start, model = two(dtype)
    own, first = state(model), state(start)
    pair = Swappable.of(model, start)
    for way, keep, expected in (
        (pair.graft, True, own),
        (pair.reset, True, first),
        (pair.graft, False, first),
        (pair.reset, False, own),  # the empty set changes nothing
    ):
        with way(masks(model, keep)) as changed:
            assert changed is model
            assert same(state(model), expected)
        assert same(state(model), own)


def test_exactly_the_set_is_exchanged_and_comes_back_after_an_error():
    start, model = two()
    own, first = state(model), state(start)
    pair = Swappable.of(model, start)
    generator = torch.Generator().manual_seed(1)
    chosen = PackedMasks.of({name: torch.rand(each.shape, generator=generator) < 0.3 for name, each in own.items()})

    class Stop(Exception):  # noqa: N818
        pass

    for way, inside, outside in ((pair.graft, own, first), (pair.reset, first, own)):
        places = [parameter.data_ptr() for parameter in model.parameters()]
        with contextlib.suppress(Stop), way(chosen):
            for name, each in state(model).items():
                assert torch.equal(each, torch.where(chosen[name], inside[name], outside[name]))
            raise Stop
        assert same(state(model), own)
        assert same({name: pair.start[name] for name in own}, first)
        assert places == [parameter.data_ptr() for parameter in model.parameters()]


def test_the_head_and_buffers_stay_the_models_own():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    model = nn.ModuleDict({"body": copy.deepcopy(body), "head": nn.Linear(4, 2)})
    with torch.no_grad():
        model["body"][0].weight.add_(1)
        model["body"][1].running_mean.add_(3)
    pair = Swappable.of(model, body)
    assert set(pair.start) == {f"body.{name}" for name, _ in body.named_parameters()}
    head, mean = model["head"].weight.detach().clone(), model["body"][1].running_mean.clone()
    with pair.reset(
        PackedMasks.of({name: torch.ones(each.shape, dtype=torch.bool) for name, each in pair.start.items()})
    ):
        assert torch.equal(model["body"][0].weight, body[0].weight)
        assert torch.equal(model["head"].weight, head)
        assert torch.equal(model["body"][1].running_mean, mean)
    with pytest.raises(NotComparableError, match=r"'head\.weight' has no initialisation of its name and shape"):
        Swappable.of(model, body, ["head.weight"])


def test_closed_form_on_a_linear_model():
    """Of a regression the log-likelihood is −½(y − wx)², so every graft and reset is known exactly."""
    model, start = (nn.Linear(3, 1, bias=False).double() for _ in range(2))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, -1.0]]))
        start.weight.copy_(torch.tensor([[0.0, 1.0, 0.0]]))
    x = torch.eye(3, dtype=torch.float64)
    y = x @ model.weight.detach().T
    pair = Swappable.of(model, start)
    chosen = PackedMasks.of({"weight": torch.tensor([[True, False, False]])})
    with pair.graft(chosen):
        found = row_scores(model, [(x, y)], "regression")
    assert found.log_likelihood.tolist() == pytest.approx([0.0, -0.5, -0.5])
    with pair.reset(chosen):
        found = row_scores(model, [(x, y)], "regression")
    assert found.log_likelihood.tolist() == pytest.approx([-0.5, 0.0, 0.0])
