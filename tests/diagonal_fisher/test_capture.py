"""Modules that were changed, hooked, scripted or left without inputs equal the loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    D,
    VectorNorm,
    assert_exact,
    in_sizes,
    randn,
    y,
)
from diagonal_fisher.zoo import CLASSES, VOCABULARY
from torch import nn

import commonweight
from commonweight.base import UsageError

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_a_forward_that_was_replaced_on_one_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    layer = model[0]
    layer.forward = lambda x: F.linear(x, layer.weight * 2, layer.bias)
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


def test_an_embedding_that_rewrites_its_weights_is_refused():
    model = nn.Sequential(nn.Embedding(VOCABULARY, 6, max_norm=0.5), nn.Flatten(), nn.Linear(18, CLASSES))
    before = model[0].weight.detach().clone()
    with pytest.raises(UsageError, match=r"embedding 0 has max_norm.*set it to None"):
        commonweight.fisher(model, [(torch.randint(0, VOCABULARY, (8, 3)), y())])
    assert torch.equal(before, model[0].weight)


class MatrixNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize("kind", [VectorNorm, MatrixNorm])
def test_hooks_of_the_user_run_once_for_every_run_of_the_model(kind):
    torch.manual_seed(0)
    model = nn.Sequential(kind(), nn.Linear(6, CLASSES)).double()
    calls = {"layer": 0, "model": 0}
    model[0].register_forward_hook(lambda *_: calls.__setitem__("layer", calls["layer"] + 1))
    model.register_forward_hook(lambda *_: calls.__setitem__("model", calls["model"] + 1))
    footprint = commonweight.fisher(model, [(randn(8, 6), y())] * 3)
    assert calls["layer"] == calls["model"] >= 3
    if kind is VectorNorm:
        assert not footprint.metadata["generic"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_reparametrisations_that_live_in_hooks():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(6, 6)), nn.Tanh(), nn.utils.spectral_norm(nn.Linear(6, 6)), nn.Linear(6, CLASSES)
    ).double()
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_layer_whose_weight_is_used_by_the_module_above_it(batch_first):
    """Attention of PyTorch keeps its last projection as a layer that it never calls."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first)
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x):
            h = self.layer(x if batch_first else x.transpose(0, 1))
            return self.head(h.mean(1 if batch_first else 0))

    torch.manual_seed(0)
    assert_exact(Model().double(), [(randn(5, 7, 6), y(5)), (randn(3, 7, 6), y(3))])


def test_a_transposed_convolution_whose_output_size_is_given():
    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(2, 3, 3, stride=2), nn.ConvTranspose2d(3, 3, 3, stride=2)

        def forward(self, x):
            return self.up(self.down(x), output_size=x.shape[-2:]).square().mean((2, 3))

    torch.manual_seed(0)
    footprint = assert_exact(Resized().double(), [(randn(5, 2, 8, 8), y(5)), (randn(3, 2, 7, 8), y(3))])
    assert not footprint.metadata["generic"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op:UserWarning")
def test_a_layer_without_inputs():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.none = nn.Linear(4, CLASSES), nn.Linear(0, CLASSES)
            self.nothing = nn.Linear(4, 0)

        def forward(self, x):
            return self.layer(x) + self.none(x[..., :0]) + self.nothing(x).sum(-1, keepdim=True)

    torch.manual_seed(0)
    assert_exact(Empty().double(), [(randn(5, 4), y(5)), (randn(3, 4), y(3))])
    pooled = nn.Sequential(Empty(), Mean()).double()
    assert_exact(pooled, [(randn(5, 2, 4), y(5)), (randn(3, 2, 4), y(3))])


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_a_buffer_that_is_expanded():
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, CLASSES)
            self.register_buffer("scale", torch.full((1,), 2.0, dtype=D).expand(CLASSES))
            self.places = nn.Buffer(torch.arange(9)[None].expand(2, -1), persistent=False)

        def forward(self, x):
            return self.layer(x) * self.scale + self.places.sum()

    torch.manual_seed(0)
    assert_exact(Expanded().double(), [(randn(5, 4), y(5)), (randn(3, 4), y(3))])


@pytest.mark.filterwarnings("ignore:.*torch.jit.(script|trace|trace_method).*is (deprecated|not supported).*")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_submodule(how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    inner = nn.Linear(6, 6).double()
    model[0] = torch.jit.script(inner) if how == "script" else torch.jit.trace(inner, randn(2, 6))
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


class Tokens(nn.Module):
    """A leading token and positions, used as everybody does, or only the first row of each, or their sum over rows."""

    def __init__(self, read):
        super().__init__()
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 4, 6))
        self.read, self.runs = read, 0

    def forward(self, x):
        self.runs += 1
        token, places = self.read(self.token), self.read(self.places)
        return torch.cat([token.expand(len(x), -1, -1), x], 1) * places


@pytest.mark.parametrize(
    ("read", "together"),
    [
        (lambda p: p, True),
        (lambda p: p.tanh(), True),
        (lambda p: p[:1], False),
        (lambda p: p.sum(0, keepdim=True), False),
        (lambda p: p.repeat(2, 1, 1)[1:2], False),
    ],
    ids=["whole", "function", "first row", "sum", "another row"],
)
def test_parameters_of_one_row_are_replayed_for_all_examples_together(read, together):
    torch.manual_seed(0)
    tokens = Tokens(read)
    model = nn.Sequential(nn.Linear(6, 6), tokens, nn.Flatten(), nn.Linear(24, CLASSES)).double()
    batches = list(in_sizes((randn(48, 3, 6), y(48)), [16] * 3))
    footprint = assert_exact(model, batches)
    assert footprint.metadata["generic"] == {}
    tokens.runs = 0
    commonweight.fisher(model, batches[:1])
    once = tokens.runs
    tokens.runs = 0
    commonweight.fisher(model, batches[:2])
    assert tokens.runs - once == (2 if together else 17)
