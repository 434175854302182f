"""A weight used outside the layer that owns it, whenever that begins, is measured exactly all the same."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import assert_exact, randn, y
from torch import Tensor, nn

import commonweight

EXAMPLES = 40
"""More than the rows that routes are chosen on."""


class Reuses(nn.Module):
    """Uses a layer's weight a second time, as a function, for inputs that say so."""

    def __init__(self, how: str, *, always: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.how, self.always = how, always

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, :4]).tanh()
        if self.always or bool((x[:, 4] > 0).any()):
            if self.how == "function":
                h = h + x[:, 4:] * F.linear(h, self.first.weight)
            elif self.how == "transposed":
                h = h + x[:, 4:] * (h @ self.first.weight.t())
            elif self.how == "listed":
                h = h + x[:, 4:] * torch.cat([self.first.weight, self.first.weight]).mean(0)
        return self.last(h)


def batches(flag_from: int) -> list[tuple[Tensor, Tensor]]:
    x, labels = randn(EXAMPLES, 5), y(EXAMPLES)
    x[:, 4] = 0
    x[flag_from:, 4] = 1
    return [(x[i : i + 8], labels[i : i + 8]) for i in range(0, EXAMPLES, 8)]


@pytest.mark.parametrize("how", ["function", "transposed", "listed"])
@pytest.mark.parametrize("folds", [1, 2])
def test_a_use_that_begins_late_is_noticed(how: str, folds: int) -> None:
    footprint = assert_exact(Reuses(how).double(), batches(32), folds=folds)
    if folds == 1:
        assert "used outside the call of its own layer" in footprint.metadata["generic"]["first.weight"]
        assert set(footprint.metadata["generic"]) == {"first.weight"}


@pytest.mark.parametrize("how", ["function", "transposed", "listed"])
def test_a_use_from_the_beginning_is_noticed(how: str) -> None:
    footprint = assert_exact(Reuses(how, always=True).double(), batches(0))
    assert set(footprint.metadata["generic"]) == {"first.weight"}


def test_the_head_of_a_language_model_that_is_a_function() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return F.linear(self.table(ids).cumsum(1), self.table.weight)[:, -1]

    ids = torch.arange(24).view(8, 3) % 7
    footprint = assert_exact(Tied().double(), [(ids, ids[:, 0])] * 3)
    assert "table.weight" in footprint.metadata["generic"]


class Harmless(nn.Module):
    """Asks a weight for its type, its shape and zeros like it: nothing of this has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        return self.layer(x.to(weight.dtype)) + torch.zeros_like(weight)[:, 0] + weight.new_zeros(weight.shape[0])


def test_questions_to_a_weight_cost_nothing() -> None:
    footprint = assert_exact(Harmless().double(), [(randn(8, 4), y()) for _ in range(4)])
    assert footprint.metadata["generic"] == {}


def test_parameters_keep_their_class() -> None:
    model = Reuses("function").double()
    twin = copy.deepcopy(model)
    commonweight.fisher(model, batches(32), loss="classification")
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    assert [p.__dict__ for p in model.parameters()] == [p.__dict__ for p in twin.parameters()]
    assert [*model.state_dict()] == [*twin.state_dict()]


def test_parameters_keep_their_class_after_an_error() -> None:
    model = Reuses("function").double()

    def loss(outputs: Tensor, batch: object) -> Tensor:
        if type(model.first.weight) is not nn.Parameter:
            raise RuntimeError("planted")
        return outputs.sum(1)

    with pytest.raises(Exception, match="planted"):
        commonweight.fisher(model, batches(40), loss=loss)
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
