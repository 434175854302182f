"""Parts of a model that are computed again in the backward pass equal the loop."""

from __future__ import annotations

import pytest
import torch
from diagonal_fisher.loop import (
    assert_exact,
    examples_of,
    model_label_nll,
    nll,
    randn,
    wrong,
    y,
)
from diagonal_fisher.zoo import CLASSES, Checkpointed
from reference.fisher import loop_fisher
from torch import nn
from torch.utils.checkpoint import checkpoint

import commonweight

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class LateInCheckpoint(nn.Module):
    """A layer inside a reentrant checkpoint that only a rare example uses."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.embed, self.a, self.late = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)
        self.weight = weight

    def block(self, x):
        h = self.a(x).tanh()
        rare = x[:, :1, :1] > 50
        return h + self.late(h) * rare * self.weight if rare.any() else h

    def forward(self, x):
        z = torch.cat([x[..., :1] * 1.0, self.embed(x)[..., 1:]], -1)
        return self.head(checkpoint(self.block, z, use_reentrant=True).mean(1))


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("rule", ["empirical", "exact"])
def test_a_parameter_that_wakes_up_inside_a_reentrant_checkpoint(weight, rule):
    torch.manual_seed(3)
    x = 0.3 * randn(24, 5, 6)
    x[20, 0, 0] = 60
    batches = [(x[i : i + 8], y()) for i in (0, 8, 16)]
    losses = {"empirical": nll, "exact": model_label_nll}
    assert_exact(LateInCheckpoint(weight).double(), batches, nll=losses[rule], fisher_type=rule)


class TwoWays(nn.Module):
    """A vector used inside a reentrant checkpoint, where its gradient is tiny, and outside."""

    def __init__(self, weight):
        super().__init__()
        self.embed, self.scale, self.head = nn.Linear(6, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, CLASSES)
        self.weight = weight

    def forward(self, x):
        x = self.embed(x)
        inside = checkpoint(lambda z: (z * self.scale).tanh(), x, use_reentrant=True)
        return self.head(x + self.weight * (inside + (x.detach() * self.scale).tanh()))


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-6])
def test_a_gradient_that_comes_partly_from_a_reentrant_checkpoint(weight):
    torch.manual_seed(0)
    assert_exact(TwoWays(weight).double(), [(randn(5, 6), y(5)), (randn(3, 6), y(3))])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_part_of_a_checkpointed_model(reentrant):
    """Gradients do not depend on which other parameters are measured."""
    torch.manual_seed(0)
    model = Checkpointed(reentrant=reentrant).double()
    batch = (randn(8, 5, 6), y())
    whole, _ = loop_fisher(model, list(examples_of([batch])), nll)
    for include in ("inner", "inner.0", "inner.2.weight", "first", "head"):
        part = commonweight.fisher(model, [batch], include=include)
        assert wrong(part, {name: whole[name] for name in part}) == {}, include


class ExpertsInCheckpoint(nn.Module):
    """Each example goes to one layer of a reentrant checkpoint."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x, chosen):
        def route(h):
            out = torch.zeros_like(h)
            for number, expert in enumerate(self.experts):
                if (chosen == number).any():
                    out[chosen == number] = expert(h[chosen == number])
            return out

        return self.head((checkpoint(route, self.embed(x), use_reentrant=True)).tanh().mean(1))


@pytest.mark.parametrize("last", [0, 1])
def test_a_layer_of_a_reentrant_checkpoint_that_the_last_row_does_not_use(last):
    """Whether the other parameters can stay frozen while it is measured is then unknown."""
    torch.manual_seed(0)
    chosen = torch.tensor([1 - last, last, 1 - last, 1 - last, last, last, 1 - last, last])
    footprint = assert_exact(ExpertsInCheckpoint().double(), [((randn(8, 5, 6), chosen), y())])
    assert {"experts.0.weight", "experts.1.weight"} <= set(footprint.metadata["generic"])
