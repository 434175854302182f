"""The model and every random state come back as they were, whatever happens on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.small import examples, gap, in_batches, small_mlp
from diagonal_fisher.zoo import text_model
from reference.fisher import loop_fisher
from torch import nn

import commonweight

HOOKS = [
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
]


class Restless(nn.Module):
    """Changes one buffer in place, replaces another, makes a third, and draws random numbers, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.body = small_mlp(4)
        self.norm = nn.BatchNorm1d(4).double()
        self.head = nn.Linear(4, 3).double()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))
        self.register_buffer("nothing", None)
        self.register_buffer("seen", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().mean(0)
        self.nothing = x.detach()[:1]
        if "late" not in self._buffers:
            self.register_buffer("late", torch.ones(1))
        torch.rand(1), np.random.rand(), random.random()
        return self.head(self.norm(self.body(x)))


def restless():
    torch.manual_seed(0)
    model = Restless().train()
    model.norm.eval()
    model.body[0].bias.requires_grad_(False)
    for parameter in (model.head.weight, model.body[0].bias):
        parameter.grad = torch.full_like(parameter, 3.0)
    model.body[0].register_forward_hook(lambda module, args, output: output * 2)
    model.head.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.body[2].register_full_backward_hook(lambda module, inputs, outputs: None)
    return model


def state_of(model):
    """All that must not change: what is compared by value, and what by identity."""
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    buffers = {name: list(module._buffers.items()) for name, module in modules.items()}
    by_value = {
        "mode": {name: module.training for name, module in modules.items()},
        "flags": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "buffers": {f"{a}.{b}": None if v is None else v.clone() for a, vs in buffers.items() for b, v in vs},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()},
        "hooks": {
            (name, kind): list(getattr(module, kind).items()) for name, module in modules.items() for kind in HOOKS
        },
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
    }
    by_identity = [
        [id(p) for p in parameters.values()],
        [id(p.grad) for p in parameters.values()],
        [(name, id(v)) for vs in buffers.values() for name, v in vs],
        [p.data_ptr() for p in parameters.values()],
    ]
    return by_value, by_identity


def differences(a, b):
    def same(x, y):
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            return x.shape == y.shape and torch.equal(x, y)
        if isinstance(x, dict):
            return list(x) == list(y) and all(same(x[key], y[key]) for key in x)
        if isinstance(x, list):
            return len(x) == len(y) and all(map(same, x, y))
        return x == y

    found = [what for what in a[0] if not same(a[0][what], b[0][what])]
    return found + ([] if a[1] == b[1] else ["identity"])


def test_the_comparison_sees_what_an_ordinary_pass_changes():
    model = restless()
    before = state_of(model)
    model.eval()
    loss = model(examples()[0]).sum()
    assert set(differences(before, state_of(model))) == {
        "mode",
        "state",
        "buffers",
        "torch",
        "python",
        "numpy",
        "identity",
    }
    model.zero_grad()
    loss.backward()
    model.head.bias.requires_grad_(False)
    model.head.register_forward_hook(lambda *_: None)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert {"grads", "flags", "hooks", "fast path"} < set(differences(before, state_of(model)))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("rule", ["empirical", "exact", "mc"])
@pytest.mark.parametrize("fast_path", [True, False])
def test_after_success(rule, fast_path):
    model, batches = restless(), in_batches(examples(), 3)
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        before = state_of(model)
        footprint = commonweight.fisher(model, batches, fisher_type=rule)
        assert differences(before, state_of(model)) == []
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert footprint.trace() > 0
    assert "body.0.bias" not in footprint


def test_after_verify():
    model, batch = restless(), examples()
    before = state_of(model)
    assert commonweight.verify(model, batch).routes
    assert differences(before, state_of(model)) == []


def test_after_a_hugging_face_model():
    case = text_model("bert")
    model = case.model.train()
    before = state_of(model)
    commonweight.fisher(model, [case.batch])
    assert differences(before, state_of(model)) == []
    assert model.training


def loader_that_breaks():
    yield from in_batches(examples(24), 8)
    raise RuntimeError("planted")


def breaks_at_call(number):
    calls = []

    def loss(outputs, batch):
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError("planted")
        return F.cross_entropy(outputs, batch[1], reduction="none")

    return loss


def breaks_in_backward(outputs, batch):
    if len(outputs) > 1 and outputs.requires_grad:
        outputs.register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("planted")))
    return F.cross_entropy(outputs, batch[1], reduction="none")


def breaks_in_single_backward(outputs, batch):
    if len(outputs) == 1 and outputs.requires_grad:
        outputs.register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("planted")))
    return F.cross_entropy(outputs, batch[1], reduction="none")


@pytest.mark.parametrize(
    ("batches", "loss"),
    [
        (loader_that_breaks, None),
        *[(lambda: in_batches(examples(24), 8), breaks_at_call(n)) for n in (1, 2, 5, 20, 25)],
        (lambda: in_batches(examples(24), 8), breaks_in_backward),
        (lambda: in_batches(examples(24), 8), breaks_in_single_backward),
    ],
    ids=["loader", "call 1", "call 2", "call 5", "call 20", "call 25", "backward", "single backward"],
)
def test_after_an_error_midway(batches, loss):
    model = restless()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="planted"):
        commonweight.fisher(model, batches(), loss=loss)
    assert differences(before, state_of(model)) == []


def test_after_an_interruption():
    model = restless()
    before = state_of(model)

    def loader():
        yield examples()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commonweight.fisher(model, loader())
    assert differences(before, state_of(model)) == []


def test_works_where_the_caller_has_switched_gradients_off():
    model, batches = small_mlp(), in_batches(examples(), 3)
    expected = commonweight.fisher(model, batches)
    with torch.no_grad():
        footprint = commonweight.fisher(model, batches)
        assert commonweight.verify(model, batches[0]).of("rule").keys() == set(footprint)
        assert not torch.is_grad_enabled()
    assert gap(footprint, expected.tensors) == 0
    assert footprint.trace() > 0


def test_the_result_does_not_depend_on_the_mode_the_model_comes_in():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    in_eval = commonweight.fisher(model.eval(), [examples()])
    assert gap(commonweight.fisher(model.train(), [examples()]), in_eval.tensors) == 0
    assert model.training


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 6, dtype=torch.float64))

    def forward(self, x):
        return x * self.weight


def plain_loss(model, example):
    return [F.cross_entropy(model(example[0]), example[1])]


@pytest.mark.parametrize("layer", ["linear", "elementwise"])
def test_hooks_of_the_user_that_change_outputs_and_inputs_are_respected(layer):
    model = nn.Sequential(Scale(), *small_mlp())
    batch, place = examples(), {"linear": 1, "elementwise": 0}[layer]
    without = commonweight.fisher(model, [batch])
    model[place].register_forward_hook(lambda module, args, output: output * 3)
    model[place].register_forward_pre_hook(lambda module, args: (args[0] + 0.5,))
    model[place].register_forward_hook(
        lambda module, args, kwargs, output: output.sin(), with_kwargs=True, prepend=True
    )
    footprint = commonweight.fisher(model, in_batches(batch, 3))
    reference, _ = loop_fisher(model, in_batches(batch, 1), plain_loss)
    assert gap(footprint, reference) < 1e-10
    assert gap(footprint, without.tensors) > 1e-2


def test_a_buffer_that_is_a_view_of_less_memory_is_no_obstacle():
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small_mlp()
            self.register_buffer("scale", torch.full((1,), 2.0, dtype=torch.float64).expand(3))

        def forward(self, x):
            return self.body(x) * self.scale

    model, batch = Expanded(), examples()
    before = state_of(model)
    footprint = commonweight.fisher(model, [batch])
    assert differences(before, state_of(model)) == []
    reference, _ = loop_fisher(model, in_batches(batch, 1), plain_loss)
    assert gap(footprint, reference) < 1e-10


def test_hooks_that_step_an_optimiser_in_the_backward_pass_do_not_run():
    model, batch = small_mlp(), examples()
    expected = commonweight.fisher(model, [batch])

    def step(parameter):
        parameter.data.sub_(parameter.grad)

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    before = state_of(model)
    footprint = commonweight.fisher(model, [batch])
    assert differences(before, state_of(model)) == []
    assert gap(footprint, expected.tensors) < 1e-12
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    assert "state" in differences(before, state_of(model))


def test_backward_hooks_of_the_user_run():
    model, batch = small_mlp(), examples()
    model[2].register_full_backward_hook(
        lambda module, inputs, outputs: tuple(3 * i if i is not None else i for i in inputs)
    )
    footprint = commonweight.fisher(model, in_batches(batch, 3))
    reference, _ = loop_fisher(model, in_batches(batch, 1), plain_loss)
    assert gap(footprint, reference) < 1e-10
    assert gap(footprint, commonweight.fisher(small_mlp(), [batch]).tensors) > 1e-2
