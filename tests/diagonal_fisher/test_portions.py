"""Rules compared a portion of the parameters at a time find what they find all at once."""

from __future__ import annotations

import pytest
import torch
from diagonal_fisher.small import examples, small_mlp
from diagonal_fisher.zoo import ZOO
from torch import nn

import commonweight
from commonweight.diagonal_fisher import collector
from commonweight.diagonal_fisher.problem import ALL, BESIDE_SUMS, Problem, only_gradients_of, portions

pytestmark = pytest.mark.filterwarnings(
    # peft asks transformers for an attribute that was renamed
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def problem_of(model):
    """A problem that is never measured: only its parameters matter here."""
    parameters = dict(model.named_parameters())
    trainable = list(parameters.values())
    return Problem(model, parameters, parameters, trainable, None, "empirical", seed=0, samples=1, alone=True)


@pytest.mark.parametrize("kind", ZOO)
def test_portions_find_the_same_routes(monkeypatch, kind):
    found = []
    for share in (ALL, 0.3):
        torch.manual_seed(7)
        case = ZOO[kind]()
        monkeypatch.setattr(collector, "ALL", share)
        found.append(commonweight.verify(case.model, case.batch, loss=case.loss).routes)
    whole, divided = found
    assert list(divided) == list(whole)
    for name, route in whole.items():
        assert (divided[name].route, divided[name].rule, divided[name].reason) == (
            route.route,
            route.rule,
            route.reason,
        )
        assert divided[name].error == pytest.approx(route.error, rel=0.5, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("share", [ALL, BESIDE_SUMS, 0.3, 0.0])
def test_every_parameter_is_in_one_portion_that_fits(share):
    model = nn.Sequential(*(nn.Linear(size, 7) for size in (3, 40, 11, 5, 9, 20)))
    problem = problem_of(model)
    size = {name: parameter.numel() for name, parameter in model.named_parameters()}
    found = portions(problem, size, share)
    assert sorted(name for names in found for name in names) == sorted(size)
    for names in found:
        assert len(names) == 1 or sum(size[name] for name in names) <= share * sum(size.values())
    assert {ALL: len(found) == 1, BESIDE_SUMS: len(found) == 3, 0.0: len(found) == len(size)}.get(share, True)


def test_other_gradients_go_at_once_and_hooks_come_back():
    model, (x, _) = small_mlp(), examples()
    calls = []
    handle = model[0].weight.register_post_accumulate_grad_hook(calls.append)
    before = [parameter._post_accumulate_grad_hooks for parameter in model.parameters()]
    with only_gradients_of(problem_of(model), ["2.weight"]):
        model(x).sum().backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == ["2.weight"]
    assert calls == []
    assert all(
        parameter._post_accumulate_grad_hooks is hooks
        for parameter, hooks in zip(model.parameters(), before, strict=True)
    )
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len(calls) == 1
    handle.remove()
