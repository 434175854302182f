"""What cannot be measured exactly is refused, and the message says what, where and what to do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.loop import (
    D,
    assert_exact,
    randn,
    y,
)
from diagonal_fisher.small import examples, gap, in_batches, small_mlp
from diagonal_fisher.zoo import CLASSES, ZOO
from reference.fisher import loop_fisher
from torch import nn, tensor

import commonweight
from commonweight import CommonweightError
from commonweight.base import IntegrityError, MeasurementError, NotComparableError, UsageError
from commonweight.diagonal_fisher import Verification, rules
from commonweight.diagonal_fisher.contribution import Dense, Product
from commonweight.diagonal_fisher.problem import TOLERANCE


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, function, **modules):
        super().__init__()
        self.body = small_mlp()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def loop(model, batch):
    return loop_fisher(model, in_batches(batch, 1), lambda m, e: [F.cross_entropy(m(e[0]), e[1])])[0]


# Models without per-example gradients


def test_a_model_that_stays_random_in_eval_mode():
    noisy = Calls(lambda self, x: self.body(F.dropout(x, 0.5, training=True)))
    with pytest.raises(MeasurementError, match=r"two passes over the same rows give different losses.*training=True"):
        commonweight.fisher(noisy, [examples()])
    with pytest.raises(MeasurementError, match="stays random in eval mode"):
        commonweight.verify(noisy, examples())
    quiet = Calls(lambda self, x: self.body(F.dropout(x, 0.5, training=self.training)))
    assert gap(commonweight.fisher(quiet, [examples()]), loop(quiet, examples())) < 1e-10


@pytest.mark.parametrize("rule", ["empirical", "exact", "mc"])
@pytest.mark.parametrize("loss", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "two passes over the same rows"),
        (lambda x: x - x.mean(0), "an example's loss changes with the other examples"),
    ],
    ids=["random", "mixed"],
)
def test_randomness_and_mixing_are_found_under_every_loss_and_fisher_type(rule, loss, change, message):
    x, y = examples()
    labels = {"classification": y, "multilabel": F.one_hot(y, CLASSES), "regression": F.one_hot(y, CLASSES)}[loss]
    model = Calls(lambda self, x: self.body(change(x)))
    with pytest.raises(MeasurementError, match=message):
        commonweight.fisher(model, [(x, labels)], loss=loss, fisher_type=rule)


def test_batch_norm_without_running_statistics_on_images():
    torch.manual_seed(0)
    x, y = torch.randn(6, 2, 4, 4), torch.arange(6) % CLASSES
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(12, CLASSES)]
    with pytest.raises(MeasurementError, match=r"mixes examples \(batch norm without running statistics.*example 0: "):
        commonweight.fisher(nn.Sequential(*layers), [(x, y)])
    layers[1] = nn.BatchNorm2d(3)
    assert commonweight.fisher(nn.Sequential(*layers), [(x, y)]).trace() > 0


def test_batch_norm_without_running_statistics_on_vectors():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, CLASSES)).double()
    with pytest.raises(MeasurementError, match="batch norm without running statistics"):
        commonweight.fisher(model, [examples()])


@pytest.mark.parametrize(
    "mix",
    [lambda x: x - x.mean(0), lambda x: x + x.roll(1, 0), lambda x: x / x.norm(), lambda x: x @ (x.t() @ x)],
    ids=["centred", "neighbour", "norm", "attention over the batch"],
)
def test_a_model_that_mixes_the_examples_of_a_batch(mix):
    with pytest.raises(MeasurementError, match="an example's loss changes with the other examples of its batch"):
        commonweight.fisher(Calls(lambda self, x: self.body(mix(x))), [examples()])


def test_padding_that_is_not_masked_is_no_mixing():
    """Rows are compared with their padding kept: what one row gives may depend on it, but not on its neighbours."""
    x, y = torch.randn(6, 5, 6, dtype=torch.float64), torch.arange(6) % CLASSES
    assert commonweight.fisher(Calls(lambda self, x: self.body(x.mean(1))), [(x, y)]).trace() > 0


# Numbers that are not finite


@pytest.mark.parametrize("place", [0, 5, 18])
def test_a_loss_that_is_not_finite_names_its_example(place):
    x, y = examples(20)
    x[place] = float("nan")
    with pytest.raises(MeasurementError, match=f"the loss of example {place} is nan: expected a finite number"):
        commonweight.fisher(small_mlp(), in_batches((x, y), 8))
    named = {"input": x, "labels": y, "source_row": torch.arange(20) + 100}
    with pytest.raises(MeasurementError, match=f"the loss of example {place + 100} is nan"):
        commonweight.fisher(small_mlp(), [named], loss="classification")


def root_of_zero(self, x):
    """Finite outputs; for an all-zero example the gradient is 0 · ∞."""
    z = self.first(x)
    z = torch.where(z == 0, torch.zeros_like(z), z.abs().sqrt())
    return self.body(z.flatten(1, -2).mean(1) if z.dim() > 2 else z)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (60, 6)], ids=["vectors", "short sequences", "long sequences"])
@pytest.mark.parametrize("where", ["first", "middle", "last", "all"])
def test_a_gradient_that_is_not_finite_names_parameter_and_example(shape, where):
    x = torch.randn(20, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = {"first": 0, "middle": shape[0] // 2, "last": -1, "all": slice(None)}[where]
    x[5, positions if len(shape) > 1 else slice(None)] = 0
    y = torch.arange(20) % CLASSES
    model = Calls(root_of_zero, first=nn.Linear(6, 6, bias=False).double())
    assert not loop(model, (x, y))["first.weight"].isfinite().all()
    with pytest.raises(MeasurementError, match=r"the gradient of first\.weight is not finite for example 5"):
        commonweight.fisher(model, in_batches((x, y), 10))
    assert commonweight.fisher(model, in_batches((x[6:], y[6:]), 10)).trace() > 0


# Loaders and batches


@pytest.mark.parametrize("loader", [[], iter(()), ()])
def test_an_empty_loader(loader):
    with pytest.raises(UsageError, match="there is no example to measure: the loader yielded no batch"):
        commonweight.fisher(small_mlp(), loader)


def test_an_empty_batch():
    x, y = examples()
    for batches in ([(x[:0], y[:0])], [(x, y), (x[:0], y[:0])]):
        with pytest.raises(UsageError, match="a batch holds no example: drop empty batches from the loader"):
            commonweight.fisher(small_mlp(), batches)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (torch.zeros(4, 6), "got Tensor"),
        ("text", "got str"),
        (None, "got NoneType"),
        ((torch.zeros(4, 6),), "got tuple of 1"),
        ([torch.zeros(4, 6)] * 3, "got list of 3"),
        (7, "got int"),
    ],
)
def test_a_batch_of_another_kind(batch, found):
    with pytest.raises(
        UsageError, match=rf"expected each batch to be a mapping .* or a pair \(inputs, targets\), {found}"
    ):
        commonweight.fisher(small_mlp(), [batch])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"text": "none"}, "the batch holds no tensor with a batch dimension"),
        (("text", None), "the batch holds no tensor with a batch dimension"),
        ((torch.zeros(4, 6), torch.zeros(3).long()), r"has 3 labels, and its tensors have first dimensions \[4\]"),
        (
            {"input": torch.zeros(4, 6), "source_row": [1, 2], "labels": torch.zeros(4).long()},
            "source_row has 2 entries for",
        ),
        (
            {"input": torch.zeros(4, 6), "source_row": range(5), "labels": torch.zeros(4).long()},
            "source_row has 5 entries",
        ),
        ((torch.zeros(4, 6), ["a", "b", "c", "d"]), "labels|targets"),
    ],
)
def test_a_batch_whose_parts_do_not_fit(batch, message):
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(small_mlp().float(), [batch], loss="classification")


@pytest.mark.parametrize("kind", ["pair", "list", "mapping", "targets as a list", "tuple inputs", "list inputs"])
def test_every_kind_of_batch_gives_the_same(kind):
    x, y = examples()
    batch = {
        "pair": (x, y),
        "list": [x, y],
        "mapping": {"input": x, "labels": y},
        "targets as a list": (x, y.tolist()),
        "tuple inputs": ((x,), y),
        "list inputs": ([x], y),
    }[kind]
    footprint = commonweight.fisher(small_mlp(), [batch], loss="classification")
    assert gap(footprint, loop(small_mlp(), (x, y))) < 1e-12


# Outputs that do not match the batch


@pytest.mark.parametrize("rule", ["empirical", "exact", "mc"])
@pytest.mark.parametrize("loss", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize(
    "change",
    [lambda z: torch.cat([z, z]), lambda z: z[: max(1, len(z) // 2)], lambda z: z.mean(0, keepdim=True)],
    ids=["doubled", "halved", "averaged"],
)
def test_outputs_of_another_number_of_rows(rule, loss, change):
    x, y = examples()
    labels = {"classification": y, "multilabel": F.one_hot(y, CLASSES), "regression": torch.randn(8, CLASSES)}[loss]
    with pytest.raises(CommonweightError, match=r"shape|do not match the batch|one loss per example"):
        commonweight.fisher(Calls(lambda self, x: change(self.body(x))), [(x, labels)], loss=loss, fisher_type=rule)


def test_outputs_of_another_shape():
    with pytest.raises(
        UsageError, match=r"loss 'classification' expects logits \[batch, classes\], got shape \[8, 1, 3\]"
    ):
        commonweight.fisher(Calls(lambda self, x: self.body(x)[:, None]), [examples()])


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda out, batch: F.cross_entropy(out, batch[1]), r"\[\]"),
        (lambda out, batch: F.cross_entropy(out, batch[1], reduction="none")[:, None], r"\[8, 1\]"),
        (lambda out, batch: out, r"\[8, 3\]"),
        (lambda out, batch: 1.0, "float"),
    ],
)
def test_a_loss_that_is_not_one_number_per_example(loss, found):
    with pytest.raises(MeasurementError, match=rf"expected one loss per example, shape \[8\], got {found}"):
        commonweight.fisher(small_mlp(), [examples()], loss=loss)


# Models and arguments


def test_a_model_that_is_none():
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module as model, got function"):
        commonweight.fisher(lambda x: x, [examples()])


def test_a_model_without_trainable_parameters():
    with pytest.raises(UsageError, match="no parameter of the model requires a gradient: unfreeze"):
        commonweight.fisher(small_mlp().requires_grad_(False), [examples()])
    with pytest.raises(UsageError, match="no parameter of the model requires a gradient"):
        commonweight.fisher(nn.Tanh(), [examples()])


@pytest.mark.parametrize("argument", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["head", "0.weigh", "*.gain", ["0", "nope"], "1"])
def test_a_pattern_that_matches_nothing(argument, pattern):
    named = pattern if isinstance(pattern, str) else "nope"
    message = (
        rf"{argument}: '{named.replace('*', '.')}' matches no trainable parameter; names look like 0.weight, 0.bias"
    )
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(small_mlp(), [examples()], **{argument: pattern})


@pytest.mark.parametrize("choice", [{"include": []}, {"exclude": "*"}, {"include": "0", "exclude": "0.*"}])
def test_patterns_that_leave_nothing(choice):
    with pytest.raises(UsageError, match="include and exclude leave no parameter to measure"):
        commonweight.fisher(small_mlp(), [examples()], **choice)


def test_a_frozen_parameter_cannot_be_included():
    model = small_mlp()
    model[0].requires_grad_(False)
    with pytest.raises(UsageError, match=r"include: '0' matches no trainable parameter; names look like 2\.weight"):
        commonweight.fisher(model, [examples()], include="0")
    assert commonweight.fisher(model, [examples()], include="2").names == ("2.weight", "2.bias")


def test_parameters_that_are_not_here():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(UsageError, match=r"parameter 0\.weight is on the meta device"):
        commonweight.fisher(model, [examples()])


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_a_lazy_model():
    model = nn.Sequential(nn.LazyLinear(3))
    x, y = examples()
    with pytest.raises(UsageError, match=r"parameter 0\.weight is not initialised: run the lazy model once"):
        commonweight.fisher(model, [(x, y)])
    model(x.float())
    assert commonweight.fisher(model, [(x.float(), y)]).trace() > 0


def test_complex_parameters():
    model = nn.Sequential(nn.Linear(6, 3, dtype=torch.complex64))
    with pytest.raises(UsageError, match=r"parameter 0\.weight is complex"):
        commonweight.fisher(model, [examples()])


class Turned(nn.Module):
    """Complex weights before real ones, both trainable."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.turn, self.head = nn.Linear(6, 5, dtype=torch.complex128), nn.Linear(5, CLASSES).double()

    def forward(self, x):
        return self.head(self.turn(x.to(torch.complex128)).abs())


@pytest.mark.parametrize(
    "choice", [{"exclude": "turn"}, {"include": "head"}, {"exclude": ["turn.weight", "turn.bias"]}]
)
def test_complex_parameters_may_be_left_out(choice):
    model, batch = Turned(), examples()
    model.turn.requires_grad_(False)
    reference = loop(model, batch)
    assert gap(commonweight.fisher(model, [batch]), reference) < 1e-10
    model.turn.requires_grad_(True)
    assert gap(commonweight.fisher(model, [batch], **choice), reference) < 1e-10
    with pytest.raises(UsageError, match=r"parameter turn\.bias is complex: freeze it or leave it out with exclude"):
        commonweight.fisher(model, [batch], exclude="turn.weight")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"folds": 0}, "folds must be at least 1, got 0"),
        ({"folds": -2}, "folds must be at least 1, got -2"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"fisher_type": "data"}, "fisher_type must be one of empirical, exact, mc, got 'data'"),
        ({"fisher_type": None}, "fisher_type must be one of empirical, exact, mc, got None"),
        ({"loss": "nll"}, "loss must be one of classification, .*got 'nll'"),
    ],
)
def test_an_option_that_is_none(option, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        commonweight.fisher(small_mlp(), [examples()], folder=tmp_path / "f", **option)
    assert not (tmp_path / "f").exists()


def test_the_family_of_errors():
    assert issubclass(UsageError, ValueError)
    assert issubclass(MeasurementError, RuntimeError)
    assert [
        error.exit_code
        for error in (
            UsageError,
            MeasurementError,
            NotComparableError,
            IntegrityError,
        )
    ] == [2, 1, 3, 4]
    assert not issubclass(UsageError, MeasurementError)


# Wrappers


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_mlp()

    def forward(self, x):
        return self.net(x)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile imports it
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))])
def test_wrappers_are_seen_through(wrap):
    model, batch = Wrapped(), examples()
    plain = commonweight.fisher(model, [batch])
    wrapped = commonweight.fisher(wrap(model), [batch])
    assert wrapped.names == ("net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias")
    assert gap(wrapped, plain.tensors) == 0
    assert wrapped.metadata["model"]["class"] == "Wrapped"
    assert tuple(dict(wrap(model).named_parameters())) != wrapped.names
    assert commonweight.verify(wrap(model), batch, include="net.2").routes.keys() == {"net.2.weight", "net.2.bias"}


# verify


def wrong_bias(module, attribute, x, g, size):
    return Dense(rules.by_example(g, size).sum(1) * 1.1)


def mixed_weight(module, attribute, x, g, size):
    return Product(rules.by_example(g, size), rules.by_example(x, size).roll(1, 0))


def batch_weight(module, attribute, x, g, size):
    """The mistake of squaring the batch's gradient."""
    gradient = torch.zeros(size, *module.weight.shape, dtype=g.dtype)
    gradient[0] = g.t() @ x
    return Dense(gradient)


@pytest.mark.parametrize(
    ("attribute", "rule"),
    [("bias", wrong_bias), ("weight", mixed_weight), ("weight", batch_weight)],
    ids=["scaled", "mixed", "squared batch"],
)
def test_a_wrong_rule_is_caught_and_the_result_stays_exact(monkeypatch, attribute, rule):
    model, batch = small_mlp(), examples()
    reference = loop(model, batch)
    assert gap(commonweight.fisher(model, [batch]), reference) < 1e-12
    table = {**rules.RULES, nn.Linear: {**rules.RULES[nn.Linear], attribute: rule}}
    monkeypatch.setattr(rules, "RULES", table)

    checked = commonweight.fisher(model, [batch])
    assert gap(checked, reference) < 1e-12
    assert checked.metadata["generic"] == {}

    report = commonweight.verify(model, batch)
    replayed = {name: route for name, route in report.routes.items() if route.rule == "replay"}
    assert set(replayed) == {f"0.{attribute}", f"2.{attribute}"}
    assert f"instead of {rule.__name__}: its rule disagrees" in replayed[f"0.{attribute}"].reason
    assert report.tolerance > report.largest_error

    monkeypatch.setitem(TOLERANCE, torch.float64, math.inf)
    unchecked = commonweight.fisher(model, [batch])
    assert gap(unchecked, reference) > 1e-2  # so the check above can fail
    assert unchecked.metadata["generic"] == {}


def test_verify_reports_routes_errors_and_reasons():
    torch.manual_seed(0)
    case = ZOO["class-token"]()
    report = commonweight.verify(case.model, case.batch)
    replayed = {name for name, route in report.routes.items() if route.rule == "replay"}
    assert replayed == {"cls_token", "pos_embed", "scale"}
    assert set(report.of("rule")) - replayed == {"mix.weight", "mix.bias", "head.weight", "head.bias"}
    functional = ZOO["tied-functional"]()
    tied = commonweight.verify(functional.model, functional.batch, loss=functional.loss).routes["embed.weight"]
    assert (tied.route, tied.rule) == ("generic", "embedding_weight")
    assert tied.error > report.tolerance
    assert tuple(report.routes) == tuple(dict(case.model.named_parameters()))
    assert report.routes["mix.weight"].rule == "linear_weight"
    assert report.routes["cls_token"].reason == ""
    assert (report.rows, report.tolerance) == (3, 5e-3)
    assert 0 <= report.largest_error < 1e-4
    unused = ZOO["unused"]()
    assert set(commonweight.verify(unused.model, unused.batch).of("dormant")) == {
        "spare.weight",
        "spare.bias",
        "called_in_vain.weight",
        "called_in_vain.bias",
    }


def test_verify_as_a_table():
    torch.manual_seed(0)
    case = ZOO["class-token"]()
    report = commonweight.verify(case.model.double(), (case.batch[0].double(), case.batch[1]))
    head, rule, *lines = report.to_markdown().splitlines()
    assert head == "| parameter | route | rule | error | reason |"
    assert rule.count("|") == head.count("|")
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in report.routes]
    assert lines[0].startswith("| cls_token | rule | replay | ")
    name, route, rule, error = lines[-2].strip("| ").split(" | ")
    assert (name, route, rule) == ("head.weight", "rule", "linear_weight")
    assert float(error) < 1e-6
    assert report.to_markdown().endswith("|\n")
    assert str(report).startswith(report.to_markdown())
    assert str(report).splitlines()[-1].startswith("largest error of a rule: ")
    odd = Verification({"w": commonweight.diagonal_fisher.verification.Route("generic", reason="a|b\nc")}, 3, 1e-6)
    assert odd.to_markdown().splitlines()[-1] == r"| w | generic | – | – | a\|b c |"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_tolerance_is_that_of_the_least_accurate_parameter(dtype):
    x, y = examples()
    model = small_mlp().to(dtype)
    report = commonweight.verify(model, (x.to(dtype), y))
    assert report.tolerance == {torch.float64: 1e-6, torch.float32: 5e-3, torch.bfloat16: 0.1}[dtype]
    assert report.of("rule").keys() == report.routes.keys()


def test_verify_of_one_example_cannot_see_rules_that_mix(monkeypatch):
    table = {**rules.RULES, nn.Linear: {**rules.RULES[nn.Linear], "weight": mixed_weight}}
    monkeypatch.setattr(rules, "RULES", table)
    x, y = examples()
    with pytest.raises(UsageError, match="at least 2 examples"):
        commonweight.verify(small_mlp(), (x[:1], y[:1]))
    routes = commonweight.verify(small_mlp(), (x[:2], y[:2])).routes
    assert {name for name, route in routes.items() if route.rule == "replay"} == {"0.weight", "2.weight"}


def test_sampled_verification_uses_the_given_seed_and_any_fisher_type_is_verified():
    for rule in ("exact", "mc"):
        report = commonweight.verify(
            small_mlp(), (examples()[0], None), loss="classification", fisher_type=rule, seed=4
        )
        assert report.largest_error < 1e-9
        assert report.of("rule").keys() == report.routes.keys()
    with pytest.raises(UsageError, match="needs labels"):
        commonweight.verify(small_mlp(), (examples()[0], None), loss="classification")


def test_a_tied_weight_with_one_wrong_use_is_caught(monkeypatch):
    """Embedding and head in one: an embedding rule that loses the first token spoils the shared parameter only."""
    torch.manual_seed(0)
    case = ZOO["tied"]()
    model = case.model.double()
    expected = commonweight.fisher(model, [case.batch], loss=case.loss)

    def lossy(module, attribute, x, g, size):
        return rules._embedding_weight(module, attribute, x[:, 1:], g[:, 1:], size)

    monkeypatch.setattr(rules, "RULES", {**rules.RULES, nn.Embedding: {"weight": lossy}})
    checked = commonweight.fisher(model, [case.batch], loss=case.loss)
    assert gap(checked, expected.tensors) < 1e-10
    assert set(checked.metadata["generic"]) == {"embed.weight"}
    monkeypatch.setitem(TOLERANCE, torch.float64, math.inf)
    unchecked = commonweight.fisher(model, [case.batch], loss=case.loss)
    assert gap(unchecked, expected.tensors) > 1e-3


def test_source_rows_may_be_tensors_lists_or_ranges():
    x, y = examples()
    results = [
        commonweight.fisher(
            small_mlp(), [{"input": x, "labels": y, "source_row": form}], loss="classification", fisher_type="mc"
        )
        for form in (list(range(8)), range(8), torch.arange(8), torch.arange(8)[:, None])
    ]
    assert all(gap(result, results[0].tensors) == 0 for result in results)
    other = {"input": x, "labels": y, "source_row": tensor([8, 1, 2, 3, 4, 5, 6, 7])}
    swapped = [
        commonweight.fisher(small_mlp(), [batch], loss="classification", fisher_type="mc", samples=4)
        for batch in ({"input": x, "labels": y, "source_row": range(8)}, other)
    ]
    assert gap(*[footprint.tensors for footprint in swapped]) > 1e-4


def test_source_rows_may_lie_among_the_inputs_of_a_pair():
    x, y = examples()
    rows = tensor([5, 3, 9, 1, 0, 2, 7, 8])
    inputs = {"input": x, "source_row": rows}
    pair, mapping = (
        commonweight.fisher(small_mlp(), [batch], loss="classification", fisher_type="mc", folds=2)
        for batch in ((inputs, y), {**inputs, "labels": y})
    )
    assert gap(pair, mapping.tensors) == 0
    assert [fold.count for fold in pair.folds] == [fold.count for fold in mapping.folds]
    assert set(inputs) == {"input", "source_row"}
    with pytest.raises(UsageError, match=r"got tuple of 3; row numbers go into a mapping, such as .*\"source_row\": i"):
        commonweight.fisher(small_mlp(), [(x, y, rows)])


def test_a_loss_that_is_cut_from_the_model():
    def detached(outputs, batch):
        return F.cross_entropy(outputs.detach(), batch[1], reduction="none")

    with pytest.raises(MeasurementError, match="depends on no trainable parameter: it was detached"):
        commonweight.fisher(small_mlp(), [examples()], loss=detached)


@pytest.mark.parametrize("batches", [None, 5, nn.Linear(2, 2)])
def test_what_holds_no_batches_is_named(batches):
    kind = type(batches).__name__
    with pytest.raises(UsageError, match=f"an iterable of batches, got {kind}: give a DataLoader or a list of batches"):
        commonweight.fisher(nn.Linear(2, 2), batches)


class UndefinedAtTheEdge(nn.Module):
    """The gradient is nan at one position of one example, and the loss is finite."""

    def __init__(self, place, layer):
        super().__init__()
        self.layer, self.place = layer, place

    def forward(self, x, kept):
        h = self.layer(x)
        edge = h[:, self.place] * kept[:, None]
        return h.mean(1)[:, :CLASSES] + 0 * edge.square().sum(-1).sqrt()[:, None]


@pytest.mark.parametrize("layer", ["linear", "without bias", "norm", "replayed"])
@pytest.mark.parametrize("place", [0, -1, 2])
def test_a_gradient_that_is_nan_at_one_position(layer, place):
    torch.manual_seed(0)
    layers = {
        "linear": lambda: nn.Linear(4, 4),
        "without bias": lambda: nn.Linear(4, 4, bias=False),
        "norm": lambda: nn.LayerNorm(4),
        "replayed": lambda: nn.LSTM(4, 4, batch_first=True),
    }
    made = layers[layer]().double()
    inner = FirstOutput(made) if layer == "replayed" else made
    kept = torch.ones(24, dtype=D)
    x = randn(24, 5, 4)
    model = UndefinedAtTheEdge(place, inner)
    batches = [((x[i : i + 8], kept[i : i + 8]), y()) for i in (0, 8, 16)]
    assert_exact(model, batches)
    kept[20] = 0
    with pytest.raises(MeasurementError, match=r"the gradient of layer.*is not finite for example 20"):
        commonweight.fisher(model, batches, loss="classification")


class FirstOutput(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]
