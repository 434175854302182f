"""Losses against their formulas, and the three Fisher types against sums over labels written out."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.small import examples, gap, in_batches, rows, small_mlp
from diagonal_fisher.zoo import ZOO, text_model
from reference.fisher import loop_fisher
from torch import nn, tensor

import commonweight
from commonweight.base import MeasurementError, UsageError
from commonweight.diagonal_fisher import CustomLoss
from commonweight.diagonal_fisher.batch import Batch
from commonweight.diagonal_fisher.losses import LOSSES, choose_likelihood


def values(*shape, seed=0):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_batch(raw):
    if isinstance(raw, dict):
        inputs, labels = {key: value for key, value in raw.items() if key != "labels"}, raw["labels"]
    else:
        inputs, labels = raw
    size = len(labels if labels is not None else inputs)
    return Batch(inputs, labels, tuple(range(size)), isinstance(raw, dict))


def nll(loss, outputs, labels):
    return LOSSES[loss].nll(outputs, a_batch((torch.zeros(len(labels), 1), labels))).tolist()


def softmax_nll(row, label):
    return math.log(sum(math.exp(z) for z in row)) - row[label]


def logistic(z):
    return 1 / (1 + math.exp(-z))


# The losses, one example at a time, in plain Python


def test_classification():
    z, y = values(5, 4), tensor([0, 3, 1, 1, 2])
    expected = [softmax_nll(row, label) for row, label in zip(z.tolist(), y.tolist(), strict=True)]
    assert nll("classification", z, y) == pytest.approx(expected, rel=1e-12)
    assert nll("classification", z, y.roll(1)) != pytest.approx(expected, rel=1e-2)
    assert nll("classification", z, y.to(torch.int32)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool])
def test_multilabel(dtype):
    z, y = values(5, 3), (values(5, 3, seed=1) > 0).to(dtype)
    expected = [
        -sum(math.log(logistic(a) if b else logistic(-a)) for a, b in zip(row, labels, strict=True))
        for row, labels in zip(z.tolist(), y.tolist(), strict=True)
    ]
    assert nll("multilabel", z, y) == pytest.approx(expected, rel=1e-12)
    assert nll("multilabel", z, y.flip(1)) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5,), (5, 2, 2)])
def test_regression(shape):
    z, y = values(*shape), values(*shape, seed=1)
    expected = [
        0.5 * sum((a - b) ** 2 for a, b in zip(*pair, strict=True))
        for pair in zip(z.reshape(5, -1).tolist(), y.reshape(5, -1).tolist(), strict=True)
    ]
    assert nll("regression", z, y) == pytest.approx(expected, rel=1e-12)
    assert nll("regression", z, -y) != pytest.approx(expected, rel=1e-2)


def test_regression_with_one_output_takes_a_vector_of_labels():
    assert nll("regression", tensor([[1.0], [2.0]]), tensor([3, 2])) == [2.0, 0.0]


@pytest.mark.parametrize(("loss", "shift"), [("token", 0), ("seq2seq", 0), ("causal_lm", 1)])
def test_tokens_are_summed_over_those_that_count(loss, shift):
    z, y = values(3, 5, 4), torch.arange(15).reshape(3, 5) % 4
    y[0, 3:] = -100
    y[1] = -100
    y[2, 0] = -100
    expected = [
        sum(
            softmax_nll(row, label)
            for row, label in zip(z[i].tolist(), y[i, shift:].tolist(), strict=False)
            if label >= 0
        )
        for i in range(3)
    ]
    assert nll(loss, z, y) == pytest.approx(expected, rel=1e-12)
    assert expected[1] == 0
    other = {"causal_lm": "token"}.get(loss, "causal_lm")
    assert nll(other, z, y) != pytest.approx(expected, rel=1e-2)


# Which loss


@pytest.mark.parametrize(
    ("kind", "problem", "loss"),
    [
        ("bert", None, "classification"),
        ("bert", "single_label_classification", "classification"),
        ("bert", "multi_label_classification", "multilabel"),
        ("bert", "regression", "regression"),
        ("vit", None, "classification"),
        ("bert-masked", None, "token"),
        ("gpt2", None, "causal_lm"),
        ("llama", None, "causal_lm"),
        ("t5", None, "seq2seq"),
    ],
)
def test_the_loss_of_a_hugging_face_model_is_that_of_its_class(kind, problem, loss):
    case = text_model(kind)
    case.model.config.problem_type = problem
    assert choose_likelihood(None, case.model, a_batch(case.batch)) is LOSSES[loss]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft
def test_the_loss_of_an_adapted_model_is_that_of_its_base():
    case = ZOO["lora"]()
    assert choose_likelihood(None, case.model, a_batch(case.batch)).name == "classification"


def test_integer_targets_of_a_plain_model_are_classes():
    x, y = examples()
    assert choose_likelihood(None, small_mlp(), a_batch((x, y))).name == "classification"
    assert commonweight.fisher(small_mlp(), [(x, y)]).metadata["loss"] == "classification"


@pytest.mark.parametrize(
    "batch",
    [
        (torch.zeros(4, 6), torch.zeros(4)),
        (torch.zeros(4, 6), torch.zeros(4, 3, dtype=torch.long)),
        (torch.zeros(4, 6), None),
        {"input": torch.zeros(4, 6), "labels": torch.zeros(4, dtype=torch.long)},
    ],
    ids=["float", "matrix", "none", "mapping"],
)
def test_any_other_plain_model_must_say_its_loss(batch):
    with pytest.raises(
        UsageError, match=r"the loss of Sequential cannot be inferred: pass loss \(one of classification, mult"
    ):
        commonweight.fisher(small_mlp().float(), [batch])


def test_a_hugging_face_model_whose_class_leaves_doubt_must_say_its_loss():
    case = text_model("bert")
    with pytest.raises(UsageError, match="the loss of BertModel cannot be inferred"):
        choose_likelihood(None, case.model.bert, a_batch(case.batch))
    floats = a_batch({**case.batch, "labels": torch.zeros(5)})
    with pytest.raises(UsageError, match="the loss of BertForSequenceClassification cannot be inferred"):
        choose_likelihood(None, case.model, floats)


def test_an_unknown_loss_name():
    with pytest.raises(UsageError, match=r"loss must be one of classification, .* seq2seq, or a callable; got 'mse'"):
        commonweight.fisher(small_mlp(), [examples()], loss="mse")


# Labels that cannot be


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (
            "classification",
            tensor([0, 1, 3, 0]),
            "labels run from 0 to 3, and the model has 3 classes: expected 0 to 2",
        ),
        ("classification", tensor([0, -1, 2, 0]), "labels run from -1 to 2, and the model has 3 classes"),
        ("classification", tensor([0.0, 1.0, 2.0, 0.0]), "expects integer labels of shape .4., got torch.float32"),
        (
            "classification",
            torch.zeros(4, 1).long(),
            r"expects integer labels of shape \[4\], got torch.int64 \[4, 1\]",
        ),
        ("classification", None, "loss 'classification' with the Fisher type empirical needs labels"),
        ("multilabel", torch.zeros(4), r"loss 'multilabel': logits have shape \[4, 3\], labels \[4\]"),
        ("multilabel", torch.zeros(4, 2), r"loss 'multilabel': logits have shape \[4, 3\], labels \[4, 2\]"),
        ("multilabel", torch.full((4, 3), 2), "label"),
        ("multilabel", torch.full((4, 3), -100), "label"),
        ("multilabel", None, "loss 'multilabel' with the Fisher type empirical needs labels"),
        ("multilabel", torch.zeros(3, 4).t()[:, :2], r"labels \[4, 2\]: expected one label per output"),
        ("regression", torch.zeros(4), r"regression: outputs have shape \[4, 3\], labels \[4\]"),
        ("regression", torch.zeros(4, 3, 1), r"regression: outputs have shape \[4, 3\], labels \[4, 3, 1\]"),
        ("regression", None, "loss 'regression' with the Fisher type empirical needs labels"),
        (
            "token",
            torch.zeros(4, dtype=torch.long),
            r"loss 'token' expects logits \[batch, tokens, classes\], got shape",
        ),
    ],
)
def test_labels_that_do_not_fit(loss, labels, message):
    model, x = small_mlp().float(), torch.ones(4, 6)
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(model, [(x, labels)], loss=loss)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.long), r"labels \[4, 4\]: expected one label per token"),
        (torch.zeros(4, dtype=torch.long), r"labels \[4\]: expected one label per token"),
        (torch.full((4, 5), 3), "labels run from|3 classes"),
        (torch.full((4, 5), -1), "labels run from|3 classes"),
        (torch.zeros(4, 5), "integer labels"),
        (None, r"loss 'token' needs labels \[batch, tokens\] in the batch .*-100 is ignored"),
    ],
)
def test_token_labels_that_do_not_fit(labels, message):
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(nn.Linear(6, 3), [(torch.ones(4, 5, 6), labels)], loss="token")


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ((2, 3), (3, 2)),
        ((6,), (2, 3)),
        ((2, 3), (6,)),
        ((1, 6), (6, 1)),
        ((3, 4, 4), (4, 4, 3)),
        ((1, 4, 4), (4, 4)),
        ((4, 4), (4, 4, 1)),
        ((1, 1), ()),
        ((), (1, 1)),
    ],
)
def test_regression_compares_shapes_and_not_counts(outputs, labels):
    count = math.prod(outputs)
    model = nn.Sequential(nn.Linear(6, count), nn.Unflatten(1, outputs) if outputs else nn.Flatten(0)).double()
    x, y = values(8, 6), values(8, *labels)
    with pytest.raises(
        UsageError, match=r"regression: outputs have shape .*, labels .*: expected one label per output"
    ):
        commonweight.fisher(model, [(x, y)], loss="regression")
    footprint = commonweight.fisher(model, [(x, y.reshape(8, *outputs))], loss="regression")
    flat = commonweight.fisher(model[0], [(x, y.reshape(8, count))], loss="regression")
    assert gap({name.removeprefix("0."): value for name, value in footprint.tensors.items()}, flat.tensors) < 1e-12


def single(shape):
    return nn.Sequential(small_mlp(1), nn.Flatten(0)) if shape == (8,) else nn.Sequential(small_mlp(1))


@pytest.mark.parametrize("loss", ["multilabel", "regression"])
@pytest.mark.parametrize("outputs", [(8,), (8, 1)])
@pytest.mark.parametrize("labels", [(8,), (8, 1)])
def test_one_output_and_one_label_may_have_a_dimension_of_one_or_not(loss, outputs, labels):
    x, y = examples()[0], examples()[1] % 2

    def passes(model, example):
        z, label = model(example[0]).reshape(()), example[1].to(example[0]).reshape(())
        return [F.softplus(z) - label * z if loss == "multilabel" else 0.5 * (z - label) ** 2]

    reference, _ = loop_fisher(single(outputs), in_batches((x, y), 1), passes)
    footprint = commonweight.fisher(single(outputs), [(x, y.reshape(labels))], loss=loss)
    assert gap(footprint, reference) < 1e-10
    with pytest.raises(UsageError, match=r"labels \[1, 8\]"):
        LOSSES[loss].nll(torch.zeros(outputs), Batch(x, y.reshape(1, 8), tuple(range(8)), is_mapping=False))


# One class is certain


@pytest.mark.parametrize("labels", [tensor([0, 1] * 4), torch.zeros(8, dtype=torch.long)])
@pytest.mark.parametrize("rule", ["empirical", "exact", "mc"])
@pytest.mark.parametrize("loss", [None, "classification"])
@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_one_output_is_no_choice_among_classes(labels, rule, loss, shape):
    batch = (examples()[0], labels)
    with pytest.raises(UsageError, match=r"one output is no choice .* use loss multilabel .*Bernoulli.* or regression"):
        commonweight.fisher(single(shape), [batch], loss=loss, fisher_type=rule)
    assert commonweight.fisher(single(shape), [batch], loss="multilabel", fisher_type=rule).trace() > 0


@pytest.mark.parametrize("rule", ["empirical", "mc"])
@pytest.mark.parametrize(("kind", "labels"), [("bert", 1), ("vit", 1), ("bert-masked", 1)])
def test_a_hugging_face_model_of_one_class(kind, labels, rule):
    case = text_model(kind)
    case.model.requires_grad_(True)
    if kind == "bert-masked":
        case.model.cls.predictions.decoder = nn.Linear(case.model.config.hidden_size, labels)
    else:
        case.model.classifier = nn.Linear(case.model.config.hidden_size, labels)
    batch = {**case.batch, "labels": torch.zeros_like(case.batch["labels"])}
    with pytest.raises(UsageError, match=r"expects 2 or more classes, got outputs of shape .*, 1\]: one output is no"):
        commonweight.fisher(case.model, [batch], fisher_type=rule)


@pytest.mark.parametrize("rule", ["exact", "mc"])
def test_a_distribution_over_one_class(rule):
    loss = CustomLoss(lambda outputs, batch: outputs[:, 0], lambda outputs, batch: outputs.log_softmax(-1))
    with pytest.raises(UsageError, match=r"got \[8, 1\]; of 2 classes or more"):
        commonweight.fisher(small_mlp(1), [examples()], loss=loss, fisher_type=rule)


def test_a_loss_of_ones_own_that_is_constant_is_warned_of(tmp_path):
    x = examples()[0]
    zeros = torch.zeros(8, dtype=torch.long)

    def own(outputs, batch):
        return F.cross_entropy(outputs, batch[1], reduction="none")

    for folder in (None, tmp_path / "f"):
        with pytest.warns(UserWarning, match="the Fisher is zero in every weight: the loss of your own has no slope"):
            footprint = commonweight.fisher(small_mlp(1), [(x, zeros)], loss=own, folder=folder)
        assert footprint.trace() == 0
    assert commonweight.fisher(small_mlp(2), [(x, zeros)], loss=own).trace() > 0


# Probabilities where logits belong

ALREADY = r"the outputs are probabilities already .*loss '{}' takes logits.*leave the softmax out"


@pytest.mark.parametrize("rule", ["empirical", "exact", "mc"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_softmax_outputs_are_warned_of(rule, dtype):
    x, y = examples()
    model = nn.Sequential(small_mlp(), nn.Softmax(-1)).to(dtype)
    with pytest.warns(UserWarning, match=ALREADY.format("classification")) as caught:
        commonweight.fisher(model, in_batches((x.to(dtype), y), 3), fisher_type=rule)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=ALREADY.format("classification")):
        commonweight.verify(model, (x.to(dtype), y))


@pytest.mark.parametrize(
    "last",
    [nn.LogSoftmax(-1), nn.Sigmoid(), nn.Softplus(), nn.ReLU(), nn.Softmax(0), nn.Identity()],
    ids=lambda module: type(module).__name__,
)
def test_other_outputs_are_not(last):
    x, y = examples()
    logits = nn.Sequential(small_mlp(), last)(x).detach()
    likelihood = LOSSES["classification"]
    assert not likelihood.doubt(logits, a_batch((x, y)))
    assert likelihood.doubt(logits.softmax(-1), a_batch((x, y)))


def test_softmax_outputs_of_tokens_are_warned_of():
    x, y = torch.randn(4, 5, 6), torch.arange(20).reshape(4, 5) % 3
    with pytest.warns(UserWarning, match=ALREADY.format("token")):
        commonweight.fisher(nn.Sequential(nn.Linear(6, 3), nn.Softmax(-1)), [(x, y)], loss="token")


def test_token_draws_need_labels_to_say_which_tokens_count():
    with pytest.raises(UsageError, match="they also say which tokens count"):
        commonweight.fisher(nn.Linear(6, 3), [(torch.ones(4, 5, 6), None)], loss="token", fisher_type="mc")


def test_token_labels_of_any_integer_type_are_the_same():
    x, y = torch.randn(4, 5, 6, dtype=torch.float64), torch.arange(20).reshape(4, 5) % 3
    model = nn.Linear(6, 3).double()
    long = commonweight.fisher(model, [(x, y)], loss="token")
    assert gap(commonweight.fisher(model, [(x, y.int())], loss="token"), long.tensors) == 0


def test_outputs_that_are_no_logits():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, x):
            return self.a(x), x

    with pytest.raises(
        UsageError, match=r"loss 'classification' needs a tensor or an output with 'logits', .* returned tuple"
    ):
        commonweight.fisher(Two(), [(torch.ones(4, 6), tensor([0, 1, 2, 0]))])


# The model's own labels: the expectation, summed over labels by hand


def weighted(pairs):
    """Passes whose squares add to Σ p(y) (∂ log p(y))²."""
    return [math.sqrt(probability) * scalar for probability, scalar in pairs]


def class_passes(model, example):
    log_prob = model(example[0]).log_softmax(-1)[0]
    return weighted((math.exp(value), -log_prob[c]) for c, value in enumerate(log_prob.tolist()))


def label_set_passes(model, example):
    """Every one of the 2^K label sets."""
    z = model(example[0])[0]
    passes = []
    for labels in itertools.product([0.0, 1.0], repeat=len(z)):
        scalar = F.binary_cross_entropy_with_logits(z, tensor(labels).to(z), reduction="sum")
        passes.append((math.exp(-scalar.item()), scalar))
    return weighted(passes)


def gaussian_passes(model, example):
    """Gauss-Hermite quadrature over the labels, exact for squares."""
    z = model(example[0])[0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    passes = []
    for places in itertools.product(range(3), repeat=len(z)):
        label = z.detach() + tensor([nodes[i] for i in places]).to(z)
        probability = math.prod(weights[i] / math.sqrt(2 * math.pi) for i in places)
        passes.append((probability, 0.5 * (z - label).square().sum()))
    return weighted(passes)


BINARY = CustomLoss(
    nll=lambda outputs, batch: F.binary_cross_entropy_with_logits(
        outputs[:, 0], batch[1].clamp_max(1).to(outputs), reduction="none"
    ),
    log_prob=lambda outputs, batch: torch.stack([F.logsigmoid(-outputs[:, 0]), F.logsigmoid(outputs[:, 0])], -1),
)

EXPECTATIONS = {
    "classification": ("classification", 3, class_passes),
    "multilabel": ("multilabel", 3, label_set_passes),
    "regression": ("regression", 2, gaussian_passes),
    "custom": (BINARY, 1, label_set_passes),
}


@pytest.mark.parametrize("case", EXPECTATIONS)
def test_model_labels_equal_the_sum_over_all_labels(case):
    loss, outputs, passes = EXPECTATIONS[case]
    model, batch = small_mlp(outputs), examples(6)
    reference, traces = loop_fisher(model, in_batches(batch, 1), passes)
    footprint = commonweight.fisher(model, in_batches(batch, 4), loss=loss, fisher_type="exact")
    assert gap(footprint, reference) < 1e-10
    assert footprint.trace() == pytest.approx(sum(traces) / 6, rel=1e-10)
    assert footprint.effective_sample_size == pytest.approx(sum(traces) ** 2 / sum(t * t for t in traces), rel=1e-10)
    # The guard: unweighted passes, or the given labels, are another quantity.
    wrong, _ = loop_fisher(model, in_batches(batch, 1), lambda m, e: passes(m, e)[:1])
    assert gap(footprint, wrong) > 1e-2
    labels = {"multilabel": torch.ones(6, outputs), "regression": torch.ones(6, outputs)}.get(case, batch[1])
    data = commonweight.fisher(model, [(batch[0], labels)], loss=loss)
    assert gap(footprint, data.tensors) > 1e-2


def test_model_labels_need_no_labels():
    x, y = examples()
    with_labels = commonweight.fisher(small_mlp(), [(x, y)], loss="classification", fisher_type="exact")
    without = commonweight.fisher(small_mlp(), [(x, None)], loss="classification", fisher_type="exact")
    assert gap(without, with_labels.tensors) == 0


def test_a_saturated_probability_gives_no_nan():
    model = nn.Linear(1, 3, bias=False)
    nn.init.constant_(model.weight, 0)
    with torch.no_grad():
        model.weight[0] = 300.0
    footprint = commonweight.fisher(model, [(torch.ones(2, 1), tensor([0, 0]))], fisher_type="exact")
    assert footprint.trace() == pytest.approx(0, abs=1e-30)


def test_closed_form_of_logistic_regression():
    """F = mean p(1-p) x²."""
    x, y = examples()
    model = nn.Linear(6, 1).double()
    p = model(x).detach().sigmoid()
    expected = (p * (1 - p) * x.square()).mean(0, keepdim=True)
    for loss in ("multilabel", BINARY):
        footprint = commonweight.fisher(model, [(x, y)], loss=loss, fisher_type="exact")
        assert torch.allclose(footprint["weight"], expected, rtol=1e-12)
        assert float(footprint["bias"]) == pytest.approx(float((p * (1 - p)).mean()), rel=1e-12)
    assert not torch.allclose(expected, x.square().mean(0, keepdim=True), rtol=0.1)


def test_closed_form_of_softmax_regression():
    """F of the weight of class c = mean p_c(1-p_c) x²."""
    x, y = examples()
    model = nn.Linear(6, 3).double()
    p = model(x).detach().softmax(-1)
    expected = torch.einsum("ic,ij->cj", p * (1 - p), x.square()) / len(x)
    assert torch.allclose(commonweight.fisher(model, [(x, y)], fisher_type="exact")["weight"], expected, rtol=1e-12)


def test_closed_form_of_linear_regression():
    """F = mean x², whatever the weights and labels; with the data's labels it is not."""
    x, _ = examples()
    model, labels = nn.Linear(6, 2).double(), values(8, 2)
    footprint = commonweight.fisher(model, [(x, labels)], loss="regression", fisher_type="exact")
    assert torch.allclose(footprint["weight"], x.square().mean(0).expand(2, -1), rtol=1e-12)
    assert torch.allclose(footprint["bias"], torch.ones(2, dtype=torch.float64), rtol=1e-12)
    data = commonweight.fisher(model, [(x, labels)], loss="regression")
    residual = (model(x) - labels).detach()
    assert torch.allclose(data["bias"], residual.square().mean(0), rtol=1e-12)
    assert not torch.allclose(data["bias"], footprint["bias"], rtol=0.1)


def test_the_expected_score_is_zero():
    """E_y[∂ log p(y)] = 0: with each pass weighted by √p once more, the gradients of the passes cancel."""
    x, y = examples()
    model = small_mlp()
    outputs = model(x)
    passes = list(LOSSES["classification"].passes(outputs, a_batch((x, y)), "exact", 0, 1))
    weights = outputs.detach().softmax(-1).sqrt()
    score = sum((weights[:, c] * one).sum() for c, one in enumerate(passes))
    gradients = torch.autograd.grad(score, list(model.parameters()), retain_graph=True)
    assert max(float(g.abs().max()) for g in gradients) < 1e-12
    one_label = torch.autograd.grad(passes[0].sum(), list(model.parameters()))
    assert max(float(g.abs().max()) for g in one_label) > 1e-2


def test_more_than_a_thousand_classes_ask_for_samples():
    batch = (torch.ones(1, 1), tensor([0]))
    with pytest.raises(UsageError, match=r"one backward pass per class, and there are 1001 .* use fisher_type='mc'"):
        commonweight.fisher(nn.Linear(1, 1001), [batch], fisher_type="exact")
    for rule in ("empirical", "mc"):
        assert commonweight.fisher(nn.Linear(1, 1001), [batch], fisher_type=rule).trace() > 0
    exact = commonweight.fisher(nn.Linear(1, 1000), [batch], fisher_type="exact")
    assert exact.trace() > 0


@pytest.mark.parametrize("kind", ["gpt2", "bert-masked", "t5"])
def test_tokens_ask_for_samples(kind):
    case = text_model(kind)
    with pytest.raises(UsageError, match=f"one backward pass per token and class with loss '{case.loss}'.*'mc'"):
        commonweight.fisher(case.model, [case.batch], fisher_type="exact")


# A loss of the user's own


def test_a_loss_of_ones_own_is_called_with_what_the_loader_gave():
    x, y = examples()
    seen = []

    def own(outputs, batch):
        seen.append(batch)
        return F.cross_entropy(outputs, batch["labels"] if isinstance(batch, dict) else batch[1], reduction="none")

    model = small_mlp()
    named = commonweight.fisher(model, [(x, y)])
    assert gap(commonweight.fisher(model, [(x, y)], loss=own), named.tensors) < 1e-12
    assert isinstance(seen[-1], tuple)
    mapping = commonweight.fisher(model, [{"input": x, "labels": y, "source_row": torch.arange(8)}], loss=own)
    assert set(seen[-1]) == {"input", "labels"}
    assert gap(mapping, named.tensors) < 1e-12
    assert mapping.metadata["loss"] == "custom"


def test_a_hugging_face_model_gets_the_labels_where_the_loss_is_ones_own():
    case = text_model("t5")
    model, batch = case.model.double(), case.batch

    def own(outputs, batch):
        assert outputs.loss is not None
        loss = F.cross_entropy(outputs.logits.transpose(1, 2), batch["labels"], reduction="none")
        return loss.sum(-1)

    named = commonweight.fisher(model, [batch], loss="seq2seq")
    assert gap(commonweight.fisher(model, [batch], loss=own), named.tensors) < 1e-12


def two_targets(outputs, first, second):
    return F.cross_entropy(outputs, first, reduction="none") + outputs[:, 0] * second


TARGETS = {
    "tuple": (tuple, lambda t: t),
    "list": (list, lambda t: t),
    "mapping": (lambda t: {"first": t[0], "second": t[1]}, lambda t: (t["first"], t["second"])),
    "nest": (lambda t: [(t[0],), {"second": [t[1]]}], lambda t: (t[0][0], t[1]["second"][0])),
    "arrays": (lambda t: [t[0].numpy(), t[1].numpy()], lambda t: t),
    "with plain values": (lambda t: (*t, 0.5, None), lambda t: t[:2]),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("form", ["pair", "mapping"])
@pytest.mark.parametrize("folds", [1, 2])
def test_several_targets_reach_a_loss_of_ones_own_as_they_came(kind, form, folds):
    make, take = TARGETS[kind]
    (x, y), second = examples(), values(8)
    given = []

    def own(outputs, batch):
        targets = batch["labels"] if form == "mapping" else batch[1]
        given.append(targets)
        return two_targets(outputs, *take(targets))

    reference, _ = loop_fisher(small_mlp(), in_batches((x, y, second), 1), lambda m, e: [two_targets(m(e[0]), *e[1:])])
    parts = in_batches((x, y, second), 5)
    batches = [{"input": a, "labels": make(b)} if form == "mapping" else (a, make(b)) for a, *b in parts]
    footprint = commonweight.fisher(small_mlp(), batches, loss=own, folds=folds)
    assert gap(footprint, reference) < 1e-10
    assert all(type(targets) is type(make([y, second])) for targets in given)
    assert kind != "with plain values" or given[0][2:] == (0.5, None)
    swapped = [{**batch, "labels": make(parts[0][1:])} for batch in batches[:1]] if form == "mapping" else batches[:1]
    assert gap(commonweight.fisher(small_mlp(), swapped, loss=own), reference) > 1e-3


def test_a_data_loader_hands_on_several_targets():
    (x, y), second = examples(), values(8)
    rows_of = [(x[i], (y[i], second[i])) for i in range(8)]
    loader = torch.utils.data.DataLoader(rows_of, batch_size=3)
    footprint = commonweight.fisher(small_mlp(), loader, loss=lambda out, batch: two_targets(out, *batch[1]))
    reference, _ = loop_fisher(small_mlp(), in_batches((x, y, second), 1), lambda m, e: [two_targets(m(e[0]), *e[1:])])
    assert gap(footprint, reference) < 1e-10


def test_keys_that_the_model_does_not_take_are_for_the_loss():
    (x, y), weight = examples(), values(8).abs()

    def own(outputs, batch):
        return batch["weight"] * F.cross_entropy(outputs, batch["target"], reduction="none")

    named = {"input": x, "target": y, "weight": weight, "source_row": torch.arange(8)}
    reference, _ = loop_fisher(
        small_mlp(), in_batches((x, y, weight), 1), lambda m, e: [e[2] * F.cross_entropy(m(e[0]), e[1])]
    )
    for folds in (1, 2):
        assert gap(commonweight.fisher(small_mlp(), in_batches(named, 4), loss=own, folds=folds), reference) < 1e-10
    pair = ({"input": x, "weight": weight}, y)
    in_pair = commonweight.fisher(
        small_mlp(), [pair], loss=lambda out, b: b[0]["weight"] * F.cross_entropy(out, b[1], reduction="none")
    )
    assert gap(in_pair, reference) < 1e-10
    with pytest.raises(
        UsageError, match=r"the batch has 'weight', and Sequential\.forward takes input: .* a loss of your"
    ):
        commonweight.fisher(small_mlp(), [pair], loss="classification")


@pytest.mark.parametrize("loss", ["classification", "multilabel", "regression", "token", None])
@pytest.mark.parametrize("targets", [lambda y: (y, y), lambda y: [y, y], lambda y: {"a": y, "b": y}])
def test_a_named_loss_takes_one_target(loss, targets):
    x, y = examples()
    message = r"expects one tensor of labels, got a (tuple|list|dict) of 2: for several targets in Python pass as loss"
    model = nn.Sequential(small_mlp(), nn.Unflatten(1, (1, 3))) if loss == "token" else small_mlp()
    with pytest.raises(UsageError, match="cannot be inferred: pass loss" if loss is None else message):
        commonweight.fisher(model, [(x, targets(y))], loss=loss)


@pytest.mark.parametrize("rule", ["exact", "mc"])
@pytest.mark.parametrize("loss", [BINARY.nll, CustomLoss(BINARY.nll)])
def test_a_loss_of_ones_own_needs_a_distribution_for_the_models_labels(rule, loss):
    with pytest.raises(
        UsageError, match=r"gives no label distribution .*fisher_type='empirical'.*CustomLoss\(nll, log_prob\)"
    ):
        commonweight.fisher(small_mlp(1), [examples()], loss=loss, fisher_type=rule)
    assert commonweight.fisher(small_mlp(1), [examples()], loss=loss).trace() > 0


@pytest.mark.parametrize("rule", ["exact", "mc"])
@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (lambda outputs, batch: outputs, "must return normalised log-probabilities: use log_softmax"),
        (lambda outputs, batch: outputs.softmax(-1), "must return normalised log-probabilities"),
        (lambda outputs, batch: outputs.log_softmax(0), "must return normalised log-probabilities"),
        (
            lambda outputs, batch: outputs.log_softmax(-1)[:, 0],
            r"must return \[batch, classes\] = \[8, classes\], got \[8\]",
        ),
        (lambda outputs, batch: outputs.log_softmax(-1).t(), r"= \[8, classes\], got \[3, 8\]"),
        (lambda outputs, batch: None, r"= \[8, classes\], got NoneType"),
    ],
)
def test_a_distribution_that_is_none(rule, log_prob, message):
    loss = CustomLoss(lambda outputs, batch: outputs.sum(-1), log_prob)
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(small_mlp(), [examples()], loss=loss, fisher_type=rule)


PAIR = r"a pair \(inputs, targets\) of size 8"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            F.cross_entropy,
            rf"raised TypeError: cross_entropy_loss\(\): argument 'target' .* Tensor, and batch .* {PAIR}",
        ),
        (lambda outputs: outputs, r"raised TypeError: .* takes 1 positional argument but 2 were given\. It is called"),
        (lambda outputs, batch: batch["labels"], "raised TypeError: tuple indices must be integers"),
        (lambda outputs, batch: outputs.logits, "raised AttributeError: 'Tensor' object has no attribute 'logits'"),
        (lambda outputs, batch: outputs[:, 9], "raised IndexError: index 9 is out of bounds"),
        (lambda outputs, batch: {}[3], "raised KeyError: 3"),
    ],
)
def test_a_loss_that_fails_says_how_it_is_called(loss, message):
    for given in (loss, CustomLoss(loss)):
        with pytest.raises(MeasurementError, match=message) as caught:
            commonweight.fisher(small_mlp(), [examples()], loss=given)
        assert "the loss of your own raised" in str(caught.value)
        assert "called as loss(outputs, batch)" in str(caught.value)
        assert str(caught.value).endswith("and returns one loss per example, [batch]")
        assert type(caught.value.__cause__).__name__ in str(caught.value)


def test_a_distribution_that_fails_says_how_it_is_called_and_a_mapping_is_named():
    x, y = examples()
    loss = CustomLoss(lambda outputs, batch: outputs.sum(-1), lambda outputs, batch: batch["label"])
    with pytest.raises(
        MeasurementError,
        match=r"KeyError: 'label'.* log_prob\(outputs, .* here a mapping with 'input', 'labels' of size 8",
    ):
        commonweight.fisher(small_mlp(), [{"input": x, "labels": y}], loss=loss, fisher_type="exact")


@pytest.mark.parametrize(
    "error", [UsageError("as it is"), MeasurementError("as it is"), torch.OutOfMemoryError("full")]
)
def test_what_a_loss_says_in_the_words_of_the_library_and_full_memory_pass(error):
    def loss(outputs, batch):
        raise error

    with pytest.raises(type(error)) as caught:
        commonweight.fisher(small_mlp(), [examples()], loss=loss)
    assert caught.value is error


def test_a_loss_that_is_no_tensor_is_refused():
    with pytest.raises(MeasurementError, match=r"expected one loss per example, shape \[8\], got float"):
        commonweight.fisher(small_mlp(), [examples()], loss=lambda outputs, batch: 3.0)


def test_a_loss_that_is_averaged_is_refused():
    with pytest.raises(
        MeasurementError, match=r"expected one loss per example, shape \[8\], got \[\].*reduction='none'"
    ):
        commonweight.fisher(small_mlp(), [examples()], loss=lambda out, batch: F.cross_entropy(out, batch[1]))


AVERAGED = {
    "divided by the batch": lambda out, batch: F.cross_entropy(out, batch[1], reduction="none") / len(batch[1]),
    "averaged and spread": lambda out, batch: F.cross_entropy(out, batch[1]).expand(len(out)),
    "divided by a sum": lambda out, batch: F.cross_entropy(out, batch[1], reduction="none") / (1 + batch[1]).sum(),
    "every label": lambda out, batch: (out[:, :1] - batch[1]).square().mean(-1),
    "in-batch negatives": lambda out, batch: -(out @ out.t()).log_softmax(-1).diagonal(),
}


@pytest.mark.parametrize("kind", AVERAGED)
@pytest.mark.parametrize("size", [3, 8, 20])
def test_a_loss_that_depends_on_the_batch_is_blamed_and_not_the_model(kind, size):
    message = r"a loss of your own gives .* averaged over the batch or divided by its size.*\(example \d+: "
    with pytest.raises(MeasurementError, match=message):
        commonweight.fisher(small_mlp(), [examples(size)], loss=AVERAGED[kind])


@pytest.mark.parametrize("kind", AVERAGED)
def test_a_model_that_mixes_is_blamed_whatever_the_loss(kind):
    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small_mlp()

        def forward(self, x):
            return self.body(x - x.mean(0))

    with pytest.raises(MeasurementError, match="a module mixes examples"):
        commonweight.fisher(Mixes(), [examples()], loss=AVERAGED[kind])


# Virtual tokens of prompt tuning


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gpt2", lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
        ("llama", lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=1)),
        (
            "gpt2",
            lambda: peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, encoder_hidden_size=8),
        ),
        ("gpt2", lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
        ("bert", lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)),
        ("t5", lambda: peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)),
    ],
    ids=["prompt", "one token", "encoder", "prefix", "classes", "seq2seq"],
)
@pytest.mark.parametrize("loss", [None, "named"])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft
def test_prompt_tuning_equals_the_loop_over_its_own_loss(kind, config, loss):
    torch.manual_seed(0)
    case = text_model(kind)
    model = peft.get_peft_model(case.model, config()).double()

    def passes(model, example):
        """peft puts -100 for the virtual tokens, and averages over the labels that are left."""
        out = model(**example)
        labels = example["labels"]
        shifted = labels if kind != "gpt2" or out.logits.shape[1] > labels.shape[1] else labels[:, 1:]
        return [out.loss * (shifted != -100).sum()]

    reference, _ = loop_fisher(model, in_batches(case.batch, 1), passes)
    footprint = commonweight.fisher(model, in_batches(case.batch, 3), loss=loss and case.loss)
    assert gap(footprint, reference) < 1e-6  # transformers takes its losses in float32
    if kind == "gpt2":
        assert commonweight.fisher(model, [case.batch], fisher_type="mc").trace() > 0


# Draws from the model's own labels


def key(*parts):
    """The key of a draw, written out once more."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniforms(count, *parts):
    return torch.rand(count, generator=torch.Generator().manual_seed(key(*parts)), dtype=torch.float64).tolist()


def drawn_class(logits, uniform):
    cumulative = 0.0
    for label, probability in enumerate(logits.detach().double().softmax(-1).tolist()):
        cumulative += probability
        if uniform < cumulative:
            return label
    return len(logits) - 1


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("samples", [1, 3])
def test_draws_equal_a_loop_over_the_same_draws(seed, samples):
    model, (x, y) = small_mlp(), examples(6)
    source = [5, 900, 0, 17, 2, 3]

    def passes(model, example):
        logits, row = model(example[0])[0], int(example[1])
        labels = [drawn_class(logits, *uniforms(1, seed, row, draw)) for draw in range(samples)]
        return [math.sqrt(1 / samples) * -logits.log_softmax(-1)[label] for label in labels]

    reference, _ = loop_fisher(model, in_batches((x, tensor(source)), 1), passes)
    batch = {"input": x, "labels": y, "source_row": source}
    footprint = commonweight.fisher(model, [batch], loss="classification", fisher_type="mc", seed=seed, samples=samples)
    assert gap(footprint, reference) < 1e-12
    other = commonweight.fisher(model, [batch], loss="classification", fisher_type="mc", seed=seed + 1, samples=samples)
    assert gap(other, reference) > 1e-3


def test_token_draws_equal_a_loop_over_the_same_draws():
    case = text_model("gpt2")
    model, batch = case.model.double(), case.batch

    def passes(model, example):
        logits = model(input_ids=example["input_ids"], attention_mask=example["attention_mask"]).logits[0]
        counted = [t for t in range(6) if example["labels"][0, t + 1] != -100]
        draws = uniforms(len(counted), 0, int(example["row"]), 0)
        return [sum(-logits[t].log_softmax(-1)[drawn_class(logits[t], u)] for t, u in zip(counted, draws, strict=True))]

    reference, _ = loop_fisher(model, in_batches({**batch, "row": torch.arange(5)}, 1), passes)
    footprint = commonweight.fisher(model, in_batches(batch, 2), fisher_type="mc")
    assert gap(footprint, reference) < 1e-9
    assert gap(footprint, commonweight.fisher(model, [batch]).tensors) > 1e-2


@pytest.mark.parametrize("case", EXPECTATIONS)
def test_draws_converge_to_the_models_own_labels(case):
    loss, outputs, _ = EXPECTATIONS[case]
    model, (x, y) = small_mlp(outputs), examples(6)
    exact = commonweight.fisher(model, [(x, y)], loss=loss, fisher_type="exact").flat()

    def distance(footprint):
        return float((footprint.flat() - exact).norm() / exact.norm())

    def drawn(samples):
        return commonweight.fisher(model, [(x, y)], loss=loss, fisher_type="mc", samples=samples, seed=1)

    few, many = distance(drawn(4)), distance(drawn(1000))
    assert many < 0.06
    assert few > 2 * many
    labels = {"multilabel": torch.ones(6, outputs), "regression": torch.ones(6, outputs)}.get(case, y)
    assert distance(commonweight.fisher(model, [(x, labels)], loss=loss)) > 0.06


@pytest.mark.parametrize("loss", ["classification", "multilabel", "regression"])
def test_draws_are_keyed_by_source_row(loss):
    """Batch size, order and company change nothing; the source row and the seed do."""
    model, (x, y) = small_mlp(), examples()
    batch = {"input": x, "labels": y, "source_row": torch.arange(8) * 7}

    def draw(batches, seed=0):
        return commonweight.fisher(model, batches, loss=loss, fisher_type="mc", seed=seed, samples=2)

    whole = draw([batch])
    for size in (1, 3):
        assert gap(draw(in_batches(batch, size)), whole.tensors) < 1e-12
    shuffled = rows(batch, tensor([3, 1, 7, 0, 2, 6, 5, 4]))
    assert gap(draw(in_batches(shuffled, 3)), whole.tensors) < 1e-12
    assert gap(draw([{**batch, "source_row": torch.arange(8)}]), whole.tensors) > 1e-3
    assert gap(draw([batch], seed=1), whole.tensors) > 1e-3
    halves = [draw([rows(batch, slice(0, 4))]), draw([rows(batch, slice(4, 8))])]
    together = {name: (halves[0][name] + halves[1][name]) / 2 for name in whole}
    assert gap(whole, together) < 1e-12


def test_the_running_number_stands_in_for_the_source_row():
    model, (x, y) = small_mlp(), examples()
    plain = commonweight.fisher(model, in_batches((x, y), 3), fisher_type="mc")
    numbered = {"input": x, "labels": y, "source_row": torch.arange(8)}
    keyed = commonweight.fisher(model, [numbered], loss="classification", fisher_type="mc")
    assert gap(plain, keyed.tensors) < 1e-12


@pytest.mark.parametrize("rule", ["empirical", "mc"])
def test_token_measurements_do_not_depend_on_padding(rule):
    """Padding side, padding length and batch size; the first token is predicted by nothing, so it is not counted."""
    model = text_model("gpt2").model.double()
    ids = [[3, 7, 9, 4, 5, 11, 6], [8, 3, 5], [4, 4, 9, 10, 21], [12, 3, 17, 5, 19, 20]]

    def batch(numbers, *, left, width):
        parts = {
            name: torch.zeros(len(numbers), width, dtype=torch.long)
            for name in ("input_ids", "attention_mask", "position_ids")
        }
        parts["labels"] = torch.full((len(numbers), width), -100)
        for i, number in enumerate(numbers):
            n = len(ids[number])
            where = slice(width - n, width) if left else slice(0, n)
            parts["input_ids"][i, where] = tensor(ids[number])
            parts["attention_mask"][i, where] = 1
            parts["position_ids"][i, where] = torch.arange(n)
            parts["labels"][i, where] = tensor([-100, *ids[number][1:]])
        return {**parts, "source_row": tensor(numbers)}

    def measure(*batches, seed=0):
        return commonweight.fisher(model, batches, fisher_type=rule, seed=seed)

    right = measure(batch([0, 1, 2, 3], left=False, width=7))
    for other in (
        measure(batch([0, 1, 2, 3], left=True, width=7)),
        measure(batch([2, 0], left=False, width=9), batch([3, 1], left=True, width=8)),
        measure(*[batch([i], left=False, width=len(ids[i])) for i in range(4)]),
    ):
        assert gap(other, right.tensors) < 1e-9
    if rule == "mc":
        assert gap(measure(batch([0, 1, 2, 3], left=False, width=7), seed=1), right.tensors) > 1e-3
    else:
        blind = batch([0, 1, 2, 3], left=True, width=7)
        assert gap(measure({**blind, "position_ids": torch.arange(7).repeat(4, 1)}), right.tensors) > 1e-3


def test_probabilities_near_zero_and_one_are_drawn_as_they_are():
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(tensor([[0.0], [2.0]]))
    x = torch.ones(4000, 1, dtype=torch.float64)
    footprint = commonweight.fisher(model, [(x, None)], loss="classification", fisher_type="mc")
    p = logistic(2.0)  # F = E[(1[y=1] - p)²] = p(1-p)
    assert float(footprint["weight"][1]) == pytest.approx(p * (1 - p), rel=0.1)
    assert float(footprint["weight"][1]) != pytest.approx((1 - p) ** 2, rel=0.1)
