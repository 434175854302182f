"""The Fisher equals the batch-size-1 loop in float64, for every layer type and whole models."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    assert_exact,
    examples_of,
    in_sizes,
    nll,
    randn,
    y,
)
from diagonal_fisher.zoo import CLASSES, ZOO, sequences, text, text_model
from reference.fisher import loop_fisher
from torch import Tensor, nn

import commonweight

pytestmark = pytest.mark.filterwarnings(
    # peft asks transformers for an attribute that was renamed
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def rows(batch, start, stop):
    if isinstance(batch, dict):
        return {key: value[start:stop] for key, value in batch.items()}
    return batch[0][start:stop], batch[1][start:stop]


def to_double(batch):
    if isinstance(batch, dict):
        return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    return batch[0].double(), batch[1]


def size_of(batch):
    return len(batch["labels"]) if isinstance(batch, dict) else len(batch[1])


def in_batches(batch, size):
    return [rows(batch, start, start + size) for start in range(0, size_of(batch), size)]


def single_nll(loss):
    """The loss of one example, written out once more."""

    def logits_of(model, example):
        if not isinstance(example, dict):
            return model(example[0]), example[1]
        inputs = {key: value for key, value in example.items() if key != "labels" or loss == "seq2seq"}
        output = model(**inputs)
        return (output if isinstance(output, Tensor) else output.logits), example["labels"]

    def nll(model, example):
        logits, labels = logits_of(model, example)
        if loss == "causal_lm":
            logits, labels = logits[:, :-1], labels[:, 1:]
        return [F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="sum")]

    return nll


def largest_gap(footprint, reference):
    """Largest difference of square roots, as a share of the network's largest."""
    largest = max(float(value.max()) for value in reference.values()) ** 0.5
    gaps = [float((footprint[name].double().sqrt() - reference[name].sqrt()).abs().max()) for name in reference]
    return max(gaps) / largest


@pytest.mark.parametrize("kind", ZOO)
def test_equals_the_loop_with_batch_size_one(kind):
    torch.manual_seed(7)
    case = ZOO[kind]()
    model, batch = case.model.double(), to_double(case.batch)
    footprint = commonweight.fisher(model, in_batches(batch, 4), loss=case.loss)
    reference, traces = loop_fisher(model, in_batches(batch, 1), single_nll(case.loss))

    assert set(footprint) == set(reference)
    assert largest_gap(footprint, reference) < 1e-9
    assert footprint.trace() == pytest.approx(sum(traces) / len(traces), rel=1e-9)
    effective = sum(traces) ** 2 / sum(trace**2 for trace in traces)
    assert footprint.effective_sample_size == pytest.approx(effective, rel=1e-9)
    unexpected = [name for name in footprint.metadata["generic"] if not any(part in name for part in case.generic)]
    assert not unexpected, footprint.metadata["generic"]
    if case.generic:
        assert footprint.metadata["generic"]
    assert footprint.metadata["verified"]["largest_error"] < 1e-6


@pytest.mark.parametrize("kind", ["mlp", "bert", "gpt2", "llama", "resnet", "t5", "tied", "experts"])
@pytest.mark.parametrize("size", [1, 3])
def test_batch_size_changes_nothing(kind, size):
    torch.manual_seed(3)
    case = ZOO[kind]()
    model, batch = case.model.double(), to_double(case.batch)
    whole = commonweight.fisher(model, [batch], loss=case.loss)
    parts = commonweight.fisher(model, in_batches(batch, size), loss=case.loss)
    assert largest_gap(parts, whole.tensors) < 1e-9
    assert parts.count == whole.count == size_of(batch)


def test_the_square_of_the_batch_gradient_is_something_else():
    """The guard can fail: the mistake this library exists to avoid is far away."""
    torch.manual_seed(0)
    case = ZOO["bert"]()
    model, batch = case.model.double().eval(), case.batch
    footprint = commonweight.fisher(model, [batch])
    wrong, _ = loop_fisher(model, [batch], single_nll("classification"))
    assert largest_gap(footprint, {name: value / 5 for name, value in wrong.items()}) > 1e-2


def test_padding_side_changes_nothing():
    torch.manual_seed(0)
    case = ZOO["bert"]()
    model = case.model.double()
    right = case.batch
    lengths = right["attention_mask"].sum(1).tolist()
    left = {"labels": right["labels"], "input_ids": torch.zeros_like(right["input_ids"])}
    left["attention_mask"] = torch.zeros_like(right["attention_mask"])
    left["position_ids"] = torch.zeros_like(right["input_ids"])
    for i, n in enumerate(lengths):
        left["input_ids"][i, -n:] = right["input_ids"][i, :n]
        left["attention_mask"][i, -n:] = 1
        left["position_ids"][i, -n:] = torch.arange(n)

    # BERT pools the first token, so that one has to stay first.
    def loss(outputs, batch):
        first = (
            (batch["attention_mask"].argmax(1))
            if "position_ids" in batch
            else torch.zeros(5, dtype=torch.long)[: len(batch["labels"])]
        )
        hidden = outputs.hidden_states[-1][torch.arange(len(first)), first]
        logits = model.classifier(model.bert.pooler.activation(model.bert.pooler.dense(hidden)))
        return F.cross_entropy(logits, batch["labels"], reduction="none")

    model.config.output_hidden_states = True
    a = commonweight.fisher(model, [right], loss=loss)
    b = commonweight.fisher(model, [left], loss=loss)
    assert largest_gap(a, b.tensors) < 1e-9
    assert a.trace("bert.encoder") > 0


@pytest.mark.parametrize("kind", ["bert", "gpt2", "resnet", "llama", "class-token"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.02)])
def test_low_precision_models(kind, dtype, tolerance):
    """Against the loop in the same precision, whose gradients are rounded; squares and sums are float32 or better."""
    torch.manual_seed(0)
    case = ZOO[kind]()
    batch = case.batch
    if not isinstance(batch, dict):
        batch = (batch[0].to(dtype), batch[1])
    else:
        batch = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
    model = case.model.to(dtype)
    footprint = commonweight.fisher(model, in_batches(batch, 4), loss=case.loss)
    reference, _ = loop_fisher(model, in_batches(batch, 1), single_nll(case.loss))
    assert largest_gap(footprint, reference) < tolerance
    assert all(footprint[name].dtype == torch.float32 for name in footprint)


def test_unused_parameters_are_zero_and_listed():
    case = ZOO["unused"]()
    footprint = commonweight.fisher(case.model, [case.batch])
    assert footprint.metadata["unused"] == [
        "spare.weight",
        "spare.bias",
        "called_in_vain.weight",
        "called_in_vain.bias",
    ]
    assert footprint.trace("spare") == 0.0
    assert not footprint.metadata["generic"]
    assert math.isnan(footprint.spread["spare"].effective_sample_size) if "spare" in footprint.spread else True


def test_an_expert_that_wakes_up_later_is_measured():
    torch.manual_seed(0)
    case = ZOO["experts"]()
    model, (x, y) = case.model.double(), to_double(sequences(size=30))
    x[:, :, 1] = x[:, :, 1].clamp_max(1.0)
    x[-1, 0, 1] = 2.0
    footprint = commonweight.fisher(model, in_batches((x, y), 3))
    reference, _ = loop_fisher(model, in_batches((x, y), 1), single_nll("classification"))
    assert float(reference["experts.3.weight"].max()) > 0
    assert largest_gap(footprint, reference) < 1e-9
    assert "number of its rows" in footprint.metadata["generic"]["experts.0.weight"]
    assert "later batch" in footprint.metadata["generic"]["experts.3.weight"]


def test_is_twice_the_kl_divergence_along_an_axis():
    """The definition of the Fisher: 2·KL/ε² along a weight, for the exact expectation over labels."""
    torch.manual_seed(0)
    case = ZOO["mlp"]()
    model, (x, y) = case.model.double().eval(), to_double(case.batch)
    footprint = commonweight.fisher(model, [(x, y)], fisher_type="exact")
    weight, epsilon = model[0].weight, 1e-4
    with torch.no_grad():
        before = model(x).log_softmax(-1)
        for place in [(0, 0), (3, 2), (8, 5)]:
            weight[place] += epsilon
            after = model(x).log_softmax(-1)
            weight[place] -= epsilon
            kl = (before.exp() * (before - after)).sum(-1).mean()
            assert float(footprint["0.weight"][place]) == pytest.approx(float(2 * kl / epsilon**2), rel=2e-3, abs=1e-9)


def test_inside_autocast():
    torch.manual_seed(0)
    model, batch = text_model("bert").model, text(8)
    with torch.autocast("cpu", torch.bfloat16):
        footprint = commonweight.fisher(model, list(in_sizes(batch, [5, 3])))
        reference, traces = loop_fisher(model, list(examples_of([batch])), nll)
    largest = max(float(value.max()) for value in reference.values()) ** 0.5
    differences = {
        name: float((footprint[name].double().sqrt() - value.sqrt()).abs().max()) / largest
        for name, value in reference.items()
    }
    assert max(differences.values()) < 0.02
    assert footprint.trace() == pytest.approx(sum(traces) / len(traces), rel=0.02)
    # The squares are not rounded to bfloat16: traces by layer and tensors are the same numbers.
    for layer, spread in footprint.spread.items():
        assert spread.total / 8 == pytest.approx(footprint.trace(layer), rel=1e-3, abs=1e-12), layer


class ExpertBlock(nn.Module):
    """Mixture of experts as Mixtral writes it: a block that routes tokens to linear layers of its own."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 3, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 7), nn.SiLU(), nn.Linear(7, 6)) for _ in range(3))

    def forward(self, x):
        size, length, width = x.shape
        flat = x.reshape(-1, width)
        weights, chosen = self.gate(flat).softmax(-1).topk(2, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            out.index_add_(0, token, expert(flat[token]) * weights[token, place, None])
        return out.reshape(size, length, width)


class WithExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.moe = nn.Linear(6, 6), nn.LayerNorm(6), ExpertBlock()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.moe(self.norm(x))).tanh().mean(1))


@pytest.mark.parametrize("sizes", [[8, 8, 8], [24], [1] * 16 + [8], [5] * 4 + [4]], ids=str)
def test_a_block_of_experts(sizes):
    torch.manual_seed(0)
    footprint = assert_exact(WithExperts().double(), list(in_sizes((randn(24, 4, 6), y(24)), sizes)))
    assert "moe.gate.weight" not in footprint.metadata["generic"]
