"""Rules are used only where single-example passes agree with them, however small or late a gradient is."""

from __future__ import annotations

import copy

import pytest
import torch
from diagonal_fisher.loop import (
    D,
    assert_exact,
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
from commonweight.diagonal_fisher import rules

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class Modalities(nn.Module):
    """Text and images; images are missing (times 0) in some examples, and their layer sees time first."""

    def __init__(self, read=lambda h: h.mean(0)):
        super().__init__()
        self.words, self.pixels, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.read = read

    def forward(self, words, pixels, there):
        seen = self.read(self.pixels(pixels.transpose(0, 1)).tanh())
        return self.head(self.words(words).tanh().mean(1) + seen * there[:, None])


def with_images(there, size):
    words, pixels = randn(len(there), 4, 6), randn(len(there), 2 * size, 6)
    whole = {"words": words, "pixels": pixels, "there": torch.tensor(there, dtype=D), "labels": y(len(there))}
    return list(in_sizes(whole, [size] * (len(there) // size)))


@pytest.mark.parametrize("size", [3, 4, 8])
def test_a_modality_that_is_missing_from_the_first_rows(size):
    torch.manual_seed(0)
    batches = with_images([0.0] * 18 + [1.0] * 6, size)
    footprint = assert_exact(Modalities().double(), batches)
    assert "pixels.weight" in footprint.metadata["generic"]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("read", [lambda h: h[-1], lambda h: h[0], lambda h: h.mean(0)], ids=["last", "first", "mean"])
def test_a_modality_that_one_of_the_first_rows_has(position, read):
    """With one example and one place, a wrong rule gives the right number."""
    torch.manual_seed(0)
    there = [0.0] * 18 + [1.0] * 6
    there[position] = 1.0
    assert_exact(Modalities(read).double(), with_images(there, 3))


class Faint(nn.Module):
    """A layer whose gradient is a small share of the largest; time first, or each example with itself."""

    def __init__(self, share):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.share = share

    def forward(self, x):
        x = self.embed(x)
        faint = self.mix(x.transpose(0, 1)).tanh().transpose(0, 1)
        return self.head(x.mean(1) + self.share * faint.mean(1))


@pytest.mark.parametrize("share", [1e-1, 1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_faint_layer_that_sees_time_first(share, seed, dtype):
    torch.manual_seed(seed)
    model = Faint(share).to(dtype)
    x = torch.randn(18, 9, 6).to(dtype)
    batches = [(x[i : i + 3], y(3)) for i in range(0, 18, 3)]
    footprint = commonweight.fisher(model, batches)
    reference, _ = loop_fisher(model, list(examples_of(batches)), nll)
    assert wrong(footprint, reference, 1e-6 if dtype == torch.float64 else 1e-3) == {}


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("seed", range(3))
def test_a_faint_layer_that_sees_time_first_in_bfloat16(share, seed):
    """Against the same numbers computed in float32."""
    torch.manual_seed(seed)
    model = Faint(share).bfloat16()
    x = torch.randn(18, 9, 6).bfloat16()
    batches = [(x[i : i + 3], y(3)) for i in range(0, 18, 3)]
    footprint = commonweight.fisher(model, batches)
    exact = copy.deepcopy(model).float()
    reference, _ = loop_fisher(exact, [(x.float(), labels) for x, labels in examples_of(batches)], nll)
    assert wrong(footprint, reference, 0.15) == {}, footprint.metadata["generic"]


def test_a_fresh_adapter_has_a_first_matrix_without_gradient():
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(text_model("bert").model, config).double()
    footprint = assert_exact(model, list(in_sizes(text(8), [5, 3])), loss=None)
    assert footprint.trace("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A") == 0
    assert footprint.trace("base_model.model.bert.encoder.layer.0.attention.self.query.lora_B") > 0


def test_a_rule_that_fails_while_it_is_checked_is_not_used(monkeypatch):
    def broken(module, attribute, x, g, size):
        raise ValueError("boom")

    torch.manual_seed(0)
    monkeypatch.setitem(rules.RULES, nn.Linear, {"weight": broken, "bias": rules.RULES[nn.Linear]["bias"]})
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))
    routes = commonweight.verify(model, (randn(8, 6), y())).routes
    assert routes["0.weight"].rule == "replay"
    assert "boom" in routes["0.weight"].reason
    assert routes["0.bias"].rule == "bias"


def test_a_failing_rule_of_the_whole_model_goes_one_by_one(monkeypatch):
    def broken(module, attribute, x, g, size):
        raise ValueError("boom")

    torch.manual_seed(0)
    monkeypatch.setitem(rules.RULES, nn.Linear, {"weight": broken, "bias": broken})
    assert_exact(nn.Linear(6, CLASSES).double(), [(randn(8, 6), y())])
