"""Compiled models, and models with compiled parts, equal the loop and stay compiled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    examples_of,
    in_sizes,
    nll,
    randn,
    wrong,
    y,
)
from diagonal_fisher.zoo import CLASSES, text, text_model
from reference.fisher import loop_fisher
from torch import nn

import commonweight
from commonweight.base import MeasurementError

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def compiled_layers(model, backend):
    for at in (0, 2):
        model[at] = torch.compile(model[at], backend=backend)


def compiled_twice(model, backend):
    compiled_layers(model, backend)
    model.compile(backend=backend)


def compiled_in_place(model, backend):
    for module in model.modules():
        module.compile(backend=backend)


def compiled_forward(model, backend):
    for at in (0, 2):
        model[at].forward = torch.compile(model[at].forward, backend=backend)


def compiled_function(model, backend):
    model[1] = Calling(torch.compile(F.silu, backend=backend), torch.compile(model[2][0], backend=backend))


def compiled_at_the_first_call(model, backend):
    model[2] = CompilesItself(model[2], backend)


class Calling(nn.Module):
    def __init__(self, function, layer):
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x):
        return self.layer(self.function(x))


class CompilesItself(nn.Module):
    def __init__(self, layer, backend):
        super().__init__()
        self.layer, self.backend, self.made = layer, backend, []

    def forward(self, x):
        if not self.made:
            self.made.append(torch.compile(self.layer, backend=self.backend))
        return self.made[0](x)


COMPILED = [
    compiled_layers,
    compiled_twice,
    compiled_in_place,
    compiled_forward,
    compiled_function,
    compiled_at_the_first_call,
]


def small_stack():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), block, nn.Linear(6, CLASSES)).double()


# torch.compile imports torch.jit
compiling = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@compiling
@pytest.mark.parametrize("way", COMPILED)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_parts_of_a_model_that_are_compiled(way, backend):
    model = small_stack()
    way(model, backend)
    batches = list(in_sizes((randn(8, 6), y()), [5, 3]))
    footprint = commonweight.fisher(model, batches, folds=2)
    with torch.compiler.set_stance("force_eager"):
        reference, _ = loop_fisher(model, list(examples_of(batches)), nll)
    assert wrong(footprint, reference) == {}
    assert footprint.names == tuple(dict(model.named_parameters()))


@compiling
@pytest.mark.parametrize("how", ["wrapped", "in place", "attention"])
@pytest.mark.parametrize("rule", ["empirical", "exact"])
def test_compiled_blocks_of_an_encoder(how, rule):
    case = text_model("bert")
    model, batch = case.model.double(), text(8)
    plain = commonweight.fisher(model, [batch], fisher_type=rule)
    layers = model.get_submodule("bert.encoder.layer")
    for at, layer in enumerate(layers):
        if how == "wrapped":
            layers[at] = torch.compile(layer, backend="eager")
        elif how == "in place":
            layer.compile(backend="eager")
        else:
            layer.attention = torch.compile(layer.attention, backend="eager")
    found = commonweight.fisher(model, [batch], fisher_type=rule)
    assert ("_orig_mod" in "".join(found.names)) == (how != "in place")
    assert wrong({name.replace("_orig_mod.", ""): found[name] for name in found}, plain.tensors, 1e-12) == {}
    assert found.metadata["generic"] == plain.metadata["generic"] == {}


@compiling
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler itself
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_part_stays_compiled(warm, fails):
    torch.compiler.reset()
    runs = []

    def backend(graph, inputs):
        def run(*args):
            runs.append(graph)
            return graph.forward(*args)

        return run

    model, batch = small_stack(), (randn(8, 6), y())
    model[2] = torch.compile(model[2], backend=backend)
    if warm:
        model(batch[0])
    before = len(runs)
    assert before == warm
    if fails:
        with pytest.raises(MeasurementError, match="expected a finite number"):
            commonweight.fisher(model, [(batch[0] / 0, batch[1])])
    else:
        assert commonweight.fisher(model, [batch]).trace() > 0
    assert len(runs) == before
    model(batch[0])
    assert len(runs) == before + 1
