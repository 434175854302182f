"""What the loader gives reaches ``forward`` as it came; models that differentiate inside it equal the loop."""

from __future__ import annotations

import copy
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    VectorNorm,
    assert_exact,
    examples_of,
    in_sizes,
    nll,
    randn,
    wrong,
    y,
)
from diagonal_fisher.small import CLASSES, examples, gap
from reference.fisher import loop_fisher
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

import commonweight
from commonweight.base import MeasurementError, UsageError
from commonweight.base.errors import CommonweightError

Pair = namedtuple("Pair", "left right")


class Calls(nn.Module):
    """A linear head on what a function makes of the inputs."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(6, CLASSES).double()
        self.forward = forward.__get__(self)


def of_list(self, parts):
    return self.head(parts[0] - 2 * parts[1])


def of_fields(self, pair):
    return self.head(pair.left - 2 * pair.right)


def of_names(self, left, right):
    return self.head(left - 2 * right)


def of_list_and_scale(self, parts, scale=1.0):
    return self.head(scale * (parts[0] - 2 * parts[1]))


def of_list_and_mask(self, parts, mask=None):
    inside = sum(parts[1:], -parts[0])
    return self.head(inside if mask is None else inside * mask)


def of_any(self, *parts):
    return self.head(parts[0] - 2 * parts[1])


def of_optional(self, left=None, right=None):
    return self.head(left - 2 * right)


def of_nest(self, nest):
    return self.head(nest[0][0] - 2 * nest[1]["right"])


def two(size=8):
    return examples(size)[0], examples(size, seed=3)[0], examples(size)[1]


def cut(nest, rows):
    if isinstance(nest, torch.Tensor):
        return nest[rows]
    if isinstance(nest, dict):
        return {key: cut(part, rows) for key, part in nest.items()}
    parts = [cut(part, rows) for part in nest]
    return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)


def loop(model, call, inputs, labels):
    """One example at a time, the model called as its author calls it."""
    singles = [cut((inputs, labels), slice(i, i + 1)) for i in range(len(labels))]
    return loop_fisher(model, singles, lambda m, e: [F.cross_entropy(call(m, e[0]), e[1])])[0]


def whole(model, inputs):
    return model(inputs)


def spread(model, inputs):
    return model(*inputs)


@pytest.mark.parametrize(
    ("forward", "kind", "call"),
    [
        (of_list, list, whole),
        (of_list, tuple, whole),
        (of_list, Pair, whole),
        (of_fields, Pair, whole),
        (of_list_and_scale, list, whole),
        (of_list_and_scale, tuple, whole),
        (of_list_and_mask, list, whole),
        (of_list_and_mask, Pair, whole),
        (of_names, list, spread),
        (of_names, tuple, spread),
        (of_names, Pair, spread),
        (of_any, list, spread),
        (of_optional, list, spread),
    ],
)
@pytest.mark.parametrize("folds", [1, 2])
def test_a_sequence_reaches_forward_whole_or_else_as_its_arguments(forward, kind, call, folds):
    left, right, labels = two()
    model = Calls(forward)
    inputs, swapped = (kind(*both) if kind is Pair else kind(both) for both in ((left, right), (right, left)))
    batches = [cut((inputs, labels), rows) for rows in (slice(0, 5), slice(5, 8))]
    footprint = commonweight.fisher(model, batches, folds=folds)
    assert gap(footprint, loop(model, call, inputs, labels)) < 1e-10
    assert gap(footprint, loop(model, call, swapped, labels)) > 1e-3


def test_a_nest_reaches_forward_whole():
    left, right, labels = two()
    inputs = [(left,), {"right": right}]
    model = Calls(of_nest)
    assert gap(commonweight.fisher(model, [(inputs, labels)]), loop(model, whole, inputs, labels)) < 1e-10


def test_a_data_loader_turns_tuples_into_lists():
    left, right, labels = two()
    rows = [((left[i], right[i]), labels[i]) for i in range(8)]
    model = Calls(of_names)
    footprint = commonweight.fisher(model, DataLoader(rows, batch_size=3))
    assert gap(footprint, loop(model, spread, (left, right), labels)) < 1e-10


@pytest.mark.parametrize(
    ("forward", "inputs", "message"),
    [
        (of_names, lambda x: [x, x, x], r"forward takes left, right, .* a list of 3, neither whole \(.*'right'\) nor"),
        (
            of_names,
            lambda x: x,
            r"forward takes left, right, .* a Tensor, \(.*missing .* 'right'\); name its arguments",
        ),
        (of_names, lambda x: {"left": x}, r"the keys 'left', \(.*missing .* 'right'\)"),
        (of_fields, lambda x: [x, x], r"a list of 2, neither whole \('list' object has no attribute 'left'\) nor"),
        (of_names, lambda x: {"left": x, "rihgt": x}, r"the batch has 'rihgt', and Calls.forward takes left, right:"),
        (of_fields, lambda x: {"left": x, "right": x}, r"the batch has 'left', 'right', and Calls.forward takes pair"),
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused_by_name(forward, inputs, message):
    x, labels = examples()
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(Calls(forward), [(inputs(x), labels)])


def test_an_error_of_the_model_itself_stays_as_it_is():
    _, labels = examples()
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes") as caught:
        commonweight.fisher(nn.Linear(5, CLASSES).double(), [(examples()[0], labels)])
    assert not isinstance(caught.value, CommonweightError)


# What is not taken apart by example

X, _, Y = two()
LENGTHS = torch.arange(8, 0, -1)
PACKED = pack_padded_sequence(X[:, None].expand(8, 8, 6), LENGTHS, batch_first=True)


def ragged(layout):
    return torch.nested.nested_tensor([torch.randn(int(n), 6) for n in LENGTHS], layout=layout)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning")
@pytest.mark.parametrize("place", ["alone", "list", "mapping", "target"])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: PACKED, "a PackedSequence at .*: only .*; give the padded tensor and the lengths, and pack them in"),
        (lambda: X.relu().to_sparse_csr(), r"a sparse_csr tensor at .*give it as to_dense\(\) or to_sparse_coo\(\)"),
        (lambda: X.relu().to_sparse_csc(), "a sparse_csc tensor at"),
        (lambda: ragged(torch.jagged), "a nested tensor at .*; pad it, and give a mask"),
        (lambda: ragged(torch.strided), "a nested tensor at .*; pad it, and give a mask"),
    ],
    ids=["packed", "csr", "csc", "jagged", "nested"],
)
def test_what_is_not_taken_apart_by_example_is_refused(made, message, place):
    value = made()
    batch = {
        "alone": (value, Y),
        "list": ([X, value], Y),
        "mapping": {"input": X, "extra": value, "labels": Y},
        "target": (X, (Y, value)),
    }[place]
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(nn.Linear(6, CLASSES).double(), [batch], loss=lambda out, batch: out.sum(-1))


@pytest.mark.parametrize(
    "inputs", [X.numpy(), [X, X.numpy()], {"input": X.float().numpy()}, {"input": X, "w": Y.numpy()}]
)
def test_arrays_are_targets_and_no_inputs(inputs):
    model = nn.Linear(6, CLASSES).double()
    with pytest.raises(UsageError, match=r"an array of \w+ at .*; make it a tensor of the model's type with torch.as_"):
        commonweight.fisher(model, [(inputs, Y)], loss="classification")
    assert gap(commonweight.fisher(model, [(X, Y.numpy())]), commonweight.fisher(model, [(X, Y)]).tensors) == 0


def test_the_padded_tensor_and_its_lengths_are_taken():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, CLASSES)

        def forward(self, x, lengths):
            return self.head(self.body(pack_padded_sequence(x, lengths, batch_first=True))[1][0][-1])

    torch.manual_seed(1)
    model, x = Recurrent().double(), torch.randn(8, 8, 6, dtype=torch.float64)
    footprint = commonweight.fisher(model, [((x, LENGTHS), Y)])
    assert gap(footprint, loop(model, spread, (x, LENGTHS), Y)) < 1e-10


@pytest.mark.parametrize(
    "data", [TensorDataset(X, Y), TensorDataset(X, X), torch.utils.data.Subset(TensorDataset(X, Y), [0])]
)
def test_a_data_set_instead_of_a_loader(data):
    with pytest.raises(
        UsageError, match=r"got (TensorDataset|Subset), a data set of single examples: wrap it in torch"
    ):
        commonweight.fisher(nn.Linear(6, 6).double(), data, loss="regression")
    assert (
        commonweight.fisher(nn.Linear(6, 6).double(), DataLoader(TensorDataset(X, X), 3), loss="regression").trace() > 0
    )


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize(
    "items",
    [
        [(X[0], Y[0])],
        [{"input": X[0], "labels": 1}],
        Streamed([(X[0], torch.tensor(2))]),
        [(X[0], {"a": Y[0], "b": 0.5})],
    ],
)
def test_single_examples_instead_of_batches(items):
    with pytest.raises(
        UsageError, match="got a single one: the loader yields examples and not batches; wrap a data set"
    ):
        commonweight.fisher(nn.Linear(6, CLASSES).double(), items, loss="classification")
    assert commonweight.fisher(nn.Linear(6, CLASSES).double(), Streamed([(X, Y)])).trace() > 0


# Models that differentiate inside their forward pass


class Energy(nn.Module):
    """An energy, and a function that differentiates it inside ``forward``."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 1), nn.Linear(4, 4)
        self.function = function

    def energy(self, x):
        return self.b(self.a(x).tanh()).sum()

    def forward(self, x):
        return self.function(self, x)


def slope(energy, x):
    return torch.autograd.grad(energy, x, create_graph=True)[0]


def force(model, x):
    x = x.requires_grad_(True)
    return -slope(model.energy(x), x)


def by_a_hidden_layer(model, x):
    hidden = model.c(x)
    return model.c(slope(model.energy(hidden), hidden))


def by_a_parameter(model, x):
    return torch.stack([slope(model.energy(row[None]), model.a.weight).sum(0) for row in x])


def adapted(model, x):
    """One step of gradient descent for every example, as meta-learning takes it."""
    return torch.stack([
        F.linear(row, model.c.weight - 0.1 * slope(model.c(row).square().sum(), model.c.weight)) for row in x
    ])


def backward_to_the_inputs(model, x):
    x = x.detach().requires_grad_(True)
    model.energy(x).backward()
    return model.c(x.grad)


def backward_to_the_parameters(model, x):
    model.energy(x).backward()
    return model.c(x).tanh()


def curvature(model, x):
    x = x.requires_grad_(True)
    first = slope(model.energy(x), x)
    return torch.stack([slope(first[:, k].sum(), x)[:, k] for k in range(4)], 1)


def functional(model, x):
    return torch.func.vmap(torch.func.grad(model.energy))(x)


def partly_without_gradients(model, x):
    with torch.no_grad():
        hidden = model.c(x)
    with torch.enable_grad():
        return model.c(hidden.tanh())


@pytest.mark.parametrize(
    "function",
    [
        force,
        by_a_hidden_layer,
        by_a_parameter,
        adapted,
        backward_to_the_inputs,
        backward_to_the_parameters,
        curvature,
        functional,
        partly_without_gradients,
    ],
)
def test_a_model_that_differentiates_inside_forward_equals_the_loop(function):
    model = Energy(function).double()
    x, _ = examples(8, 4)
    y, _ = examples(8, 4, seed=2)
    singles = [(x[i : i + 1].clone(), y[i : i + 1]) for i in range(8)]
    reference, _ = loop_fisher(copy.deepcopy(model), singles, lambda m, e: [0.5 * (m(e[0]) - e[1]).square().sum()])
    batches = [(x[:5].clone(), y[:5]), (x[5:].clone(), y[5:])]
    footprint = commonweight.fisher(model, batches, loss="regression")
    assert gap(footprint, reference) < 1e-10
    assert footprint.trace() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    free = function in {by_a_hidden_layer, by_a_parameter, adapted, backward_to_the_parameters}
    inside = "the model differentiates by its parameters inside its own forward pass"
    assert (set(footprint.metadata["generic"].values()) == {inside}) == free


def test_a_model_that_differentiates_by_its_parameters_is_still_checked():
    def mixed(model, x):
        return by_a_parameter(model, x) - x.mean(0)

    batch = (examples(8, 4)[0], examples(8, 4, seed=2)[0])
    with pytest.raises(MeasurementError, match="an example's loss changes with the other examples of its batch"):
        commonweight.fisher(Energy(mixed).double(), [batch], loss="regression")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_forward_pass_without_gradients_is_refused(context):
    def forward(model, x):
        with context():
            return model.c(x)

    batch = (examples(8, 4)[0], examples(8, 4, seed=2)[0])
    with pytest.raises(MeasurementError, match=r"depends on no trainable parameter: .*torch\.no_grad\(\)"):
        commonweight.fisher(Energy(forward).double(), [batch], loss="regression")


def test_forces_without_a_graph_name_what_is_missing():
    def forward(model, x):
        x = x.requires_grad_(True)
        return torch.autograd.grad(model.energy(x), x)[0]

    batch = (examples(8, 4)[0], examples(8, 4, seed=2)[0])
    with pytest.raises(MeasurementError, match=r"made by torch\.autograd\.grad without create_graph=True"):
        commonweight.fisher(Energy(forward).double(), [batch], loss="regression")


class Force(nn.Module):
    """The outputs are derivatives of an energy by the inputs."""

    def __init__(self, way):
        super().__init__()
        self.a, self.b, self.way = nn.Linear(4, 8), nn.Linear(8, 1), way

    def energy(self, x):
        return self.b(self.a(x).tanh()).sum()

    def forward(self, x):
        if self.way == "enabled":
            x = x.detach().requires_grad_(True)
            with torch.enable_grad():
                (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        elif self.way == "detached":
            x = x.detach().requires_grad_(True)
            (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        else:
            x.requires_grad_(True)
            (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        return force[:, :CLASSES]


@pytest.mark.parametrize("way", ["enabled", "detached", "in place"])
def test_a_model_that_differentiates_inside_its_forward_pass(way):
    torch.manual_seed(0)
    x = randn(8, 4)
    batches = list(in_sizes((x, y()), [5, 3]))
    model = Force(way).double()
    footprint = assert_exact(model, [(x.clone(), labels) for x, labels in batches])
    assert footprint.trace() > 0
    assert x.grad is None


def test_inputs_that_require_a_gradient_get_none():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES)).double()
    x = randn(8, 6).requires_grad_(True)
    derived = x * 2
    for inputs in (x, derived, x):
        first = commonweight.fisher(model, [(inputs, y())])
        second = commonweight.fisher(model, [(inputs, y())])
        assert torch.equal(first.flat(), second.flat())
        assert x.grad is None
        assert inputs.requires_grad
        reference, _ = loop_fisher(model, list(examples_of([(inputs.detach(), y())])), nll)
        assert wrong(first, reference) == {}


@pytest.mark.parametrize("made", ["outside", "inside"])
def test_inside_inference_mode(made):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES), MatrixNorm3()).double()
    x, labels = randn(24, 6), y(24)
    expected, _ = loop_fisher(model, list(examples_of([(x, labels)])), nll)
    with torch.inference_mode():
        batch = (x.clone(), labels.clone()) if made == "inside" else (x, labels)
        footprint = commonweight.fisher(model, list(in_sizes(batch, [8, 8, 8])))
    assert wrong(footprint, expected) == {}
    outside = commonweight.fisher(model, [batch])
    assert wrong(outside, expected) == {}
    footprint.flat().sum()
    with torch.no_grad():
        assert wrong(commonweight.fisher(model, [batch]), expected) == {}


class MatrixNorm3(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, CLASSES))

    def forward(self, x):
        return x @ self.weight


def test_inference_mode_with_folds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES)).double()
    x, labels = randn(24, 6), y(24)
    expected = commonweight.fisher(model, [(x, labels)], folds=3)
    with torch.inference_mode():
        footprint = commonweight.fisher(model, [(x.clone(), labels.clone())], folds=3)
    assert wrong(footprint, expected.tensors) == {}
