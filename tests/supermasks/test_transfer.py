"""Prior tasks in the training of a new one, and mixtures of tasks."""

import copy

import pytest
import torch
from supermasks.supermask_nets import everything_of, mlp, network, outputs, rows, train

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.supermasks.rules import Threshold, TopK

RULES = [Threshold(), TopK(0.3), TopK(0.4, "magnitude")]
FIRST = "0.weight"


def with_priors(*, rule=None, keep_scores=True, **options):
    net = network("a", "b", rule=rule, **options)
    for task in ("a", "b"):
        train(net, task)
        net.finish(task, keep_scores=keep_scores)
    net.add_task("c")
    net.switch("c")
    return net


def rms(values):
    return values.double().square().mean().sqrt()


def expected_mixture(net, task, name, alphas, beta):
    total = 0
    for prior, alpha in alphas.items():
        scores = net.scores(prior, name)
        scores = net.mask(prior, name).double() * 2 - 1 if scores is None else scores.double()
        total = total + alpha * scores / rms(scores)
    own = net.scores(task, name).double()
    return (1 - beta) * own + beta * rms(own) * total / rms(total)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_without_strength_or_alphas_nothing_differs_to_the_last_bit(rule):
    classic = with_priors(rule=rule)
    for alphas, beta in [
        ({FIRST: {"a": 1.0}}, 0.0),
        ({}, 0.5),
        ({FIRST: {"a": 0.0, "b": 0.0}}, 0.5),
        ({FIRST: {}}, 0.5),
    ]:
        net = copy.deepcopy(with_priors(rule=rule))
        net.influence(alphas, beta)
        inputs, labels = rows(1)
        reference = copy.deepcopy(classic)
        gradients = []
        for each in (net, reference):
            each.train()
            torch.nn.functional.cross_entropy(each(inputs), labels).backward()
            gradients.append([parameter.grad for parameter in each.trainable("c")])
        assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
        train(net, "c")
        train(reference, "c")
        net.consolidate()
        net.finish("c")
        reference.finish("c")
        assert everything_of(net, "c") == everything_of(reference, "c")
        assert torch.equal(outputs(net, "c", inputs), outputs(reference, "c", inputs))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_with_strength_the_mask_is_that_of_the_mixture(rule):
    net = with_priors(rule=rule)
    alphas, beta = {"a": 0.7, "b": 0.3}, 0.4
    plain = net.mask("c", FIRST)
    expected = rule.mask(expected_mixture(net, "c", FIRST, alphas, beta))
    untouched = net.mask("c", "3.weight")
    net.influence({FIRST: alphas}, beta)
    assert torch.equal(net.mask("c", FIRST), expected)
    assert not torch.equal(net.mask("c", FIRST), plain)
    assert torch.equal(net.mask("c", "3.weight"), untouched)


def test_the_gradient_is_the_classic_one_times_one_minus_beta():
    net = with_priors(rule=Threshold(), model=mlp(norm=False))
    inputs, labels = rows(1)
    net.influence({FIRST: {"a": 1.0}}, 0.25)
    torch.nn.functional.cross_entropy(net(inputs), labels).backward()
    influenced = net.trainable("c")[0].grad
    net.consolidate()  # the same mask, and so the same masked weights, without influence
    net.zero_grad()
    torch.nn.functional.cross_entropy(net(inputs), labels).backward()
    torch.testing.assert_close(influenced, 0.75 * net.trainable("c")[0].grad)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_consolidating_changes_scores_and_no_mask(rule, dtype):
    net = with_priors(rule=rule).to(dtype)
    net.influence({name: {"a": 1.0, "b": 2.0} for name in net.masked}, 0.3)
    masks = {name: net.mask("c", name) for name in net.masked}
    scores = net.scores("c", FIRST)
    net.consolidate()
    assert not torch.equal(net.scores("c", FIRST), scores)
    assert all(torch.equal(net.mask("c", name), mask) for name, mask in masks.items())
    scores = net.scores("c", FIRST)
    net.consolidate()  # nothing is left to do
    assert torch.equal(net.scores("c", FIRST), scores)


def test_finishing_consolidates():
    net = with_priors()
    net.influence({name: {"b": 1.0} for name in net.masked}, 0.5)
    train(net, "c")
    inputs, _ = rows(2)
    answer, mask = outputs(net, "c", inputs), net.mask("c", FIRST)
    net.finish("c")
    assert torch.equal(outputs(net, "c", inputs), answer)
    assert torch.equal(net.mask("c", FIRST), mask)
    assert torch.equal(net.scores("c", FIRST) >= 0, mask)


def test_dropped_scores_speak_through_their_mask():
    net = with_priors(keep_scores=False)
    expected = expected_mixture(net, "c", FIRST, {"a": 1.0}, 0.6)
    net.influence({FIRST: {"a": 1.0}}, 0.6)
    net.consolidate()
    torch.testing.assert_close(net.scores("c", FIRST).double(), expected, rtol=1e-5, atol=1e-6)
    magnitude = with_priors(rule=TopK(0.3, "magnitude"), keep_scores=False)
    with pytest.raises(UsageError, match="bits have no magnitude"):
        magnitude.influence({FIRST: {"a": 1.0}}, 0.6)
    assert torch.equal(magnitude.mask("c", FIRST), magnitude.start_bits("c", FIRST).unpack())


@pytest.mark.parametrize("way", ["influence", "start_from"])
def test_priors_are_not_touched(way):
    net = with_priors()
    before = {task: everything_of(net, task) for task in ("a", "b")}
    alphas = {name: {"a": 1.0, "b": 0.5} for name in net.masked}
    getattr(net, way)(alphas, 0.9)
    train(net, "c", optimiser=lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9, weight_decay=0.1))
    net.consolidate()
    with torch.no_grad():
        for parameter in net.trainable("c"):
            parameter.zero_()
    assert {task: everything_of(net, task) for task in ("a", "b")} == before


def test_starting_from_priors_is_the_mixture_once():
    net = with_priors()
    expected = expected_mixture(net, "c", FIRST, {"a": 0.2, "b": 0.8}, 0.7)
    other = net.scores("c", "3.weight")
    net.start_from({FIRST: {"a": 0.2, "b": 0.8}}, 0.7)
    torch.testing.assert_close(net.scores("c", FIRST).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(net.scores("c", "3.weight"), other)
    net.start_from({FIRST: {"a": 1.0}}, 1)
    assert torch.equal(net.mask("c", FIRST), net.mask("a", FIRST))
    before = everything_of(net, "c")
    net.start_from({FIRST: {"b": 1.0}}, 0)
    net.start_from({}, 0.5)
    assert everything_of(net, "c") == before


def test_only_ratios_of_alphas_count():
    one, two = with_priors(), with_priors()
    one.start_from({FIRST: {"a": 0.25, "b": 0.75}}, 0.5)
    two.start_from({FIRST: {"a": 1.0, "b": 3.0}}, 0.5)
    torch.testing.assert_close(one.scores("c", FIRST), two.scores("c", FIRST))


def test_an_influence_stays_with_its_task():
    net = with_priors()
    net.influence({FIRST: {"a": 1.0}}, 0.5)
    mask = net.mask("c", FIRST)
    net.add_task("d")
    net.switch("d")
    assert torch.equal(net.mask("d", FIRST), net.start_bits("d", FIRST).unpack())
    net.switch("c")
    assert torch.equal(net.mask("c", FIRST), mask)
    net.influence({}, 0.5)  # replaces
    assert torch.equal(net.mask("c", FIRST), net.start_bits("c", FIRST).unpack())


def test_alphas_that_cannot_be():
    net = with_priors()
    net.add_task("d")
    cases = [
        ({FIRST: {"c": 1.0}}, "expected tasks added before it, not itself or a later one"),
        ({FIRST: {"d": 1.0}}, "expected tasks added before it, not itself or a later one"),
        ({FIRST: {"z": 1.0}}, r"alphas name the task 'z': expected a prior task, which are \['a', 'b'\]"),
        ({"0.bias": {"a": 1.0}}, "expected names of masked weights"),
        ({FIRST: {"a": -0.1}}, "finite number of at least 0"),
        ({FIRST: {"a": float("nan")}}, "finite number of at least 0"),
    ]
    before = everything_of(net, "c")
    for alphas, message in cases:
        for call in (net.influence, net.start_from):
            with pytest.raises(UsageError, match=message):
                call(alphas, 0.5)
    for beta in (-0.1, 1.1, float("nan"), True):
        with pytest.raises(UsageError, match="beta"):
            net.start_from({}, beta)
    with pytest.raises(UsageError, match="beta 1 leaves the task nothing to train"):
        net.influence({FIRST: {"a": 1.0}}, 1)
    net.switch("d")
    with pytest.raises(UsageError, match=r"'c' is not finished, so its scores may still move; call finish\('c'\)"):
        net.influence({FIRST: {"c": 1.0}}, 0.5)
    net.switch(None)
    with pytest.raises(UsageError, match="no task is selected"):
        net.influence({}, 0.5)
    assert everything_of(net, "c") == before


def test_priors_without_a_direction_are_refused():
    net = network("a", "b", "c")
    with torch.no_grad():
        net.trainable("a")[0].zero_()
    for task in ("a", "b"):
        net.finish(task)
    net.switch("c")
    before = everything_of(net, "c")
    for call in (net.start_from, net.influence):
        with pytest.raises(MeasurementError, match="expected a finite size over 0"):
            call({"3.weight": {"b": 1.0}, FIRST: {"a": 1.0}}, 0.5)
    assert everything_of(net, "c") == before  # nothing was begun


def one_hot(tasks, chosen, **options):
    return {task: torch.tensor(float(task == chosen), **options) for task in tasks}


@pytest.mark.parametrize("batch_norm", ["statistics", "affine"])
@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
def test_a_superposition_of_one_is_that_task_to_the_last_bit(rule, batch_norm):
    net = with_priors(rule=rule, batch_norm=batch_norm)
    inputs, _ = rows(4)
    for task in net.tasks:
        expected = outputs(net, task, inputs)
        with net.superposed(one_hot(net.tasks, task)):
            assert torch.equal(net(inputs), expected)
        with net.superposed(one_hot(net.tasks, task, requires_grad=True)):
            assert torch.equal(net(inputs), expected)
    assert not torch.equal(outputs(net, "a", inputs), outputs(net, "b", inputs))


@pytest.mark.parametrize("counts", [None, 1, 7.5])
@pytest.mark.parametrize("norm", [True, False])
def test_the_gradient_into_the_mixture_is_that_of_finite_differences(norm, counts):
    net = with_priors(model=mlp(norm=norm), batch_norm="affine").double()
    net.eval()
    inputs, _ = rows(4)
    direction = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()

    def value(weights):
        with net.superposed(dict(zip(net.tasks, weights, strict=True)), mixture_counts=counts):
            return (net(inputs.double()) * direction).sum()

    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    value(weights.unbind()).backward()
    assert weights.grad.abs().min() > 1e-4
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = 1e-6
        with torch.no_grad():
            slope = (value((weights + step).unbind()) - value((weights - step).unbind())) / 2e-6
        assert float(weights.grad[i]) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("counts", [None, 1, 2.5])
@pytest.mark.parametrize("count", [1, 40])
def test_batch_norms_use_the_statistics_of_the_mixture(counts, count):
    net = with_priors().double()
    net.eval()
    inputs = rows(4, count)[0].double()
    weights = {"a": torch.tensor(0.6).double(), "b": torch.tensor(0.4).double()}
    seen = {}
    hook = net.model[1].register_forward_hook(lambda module, given, output: seen.update(given=given[0], output=output))
    with net.superposed(weights, mixture_counts=counts):
        net(inputs)
    hook.remove()
    of = {task: net.statistics(task)["1"] for task in weights}
    mean = sum(a * of[task].mean for task, a in weights.items())
    variance = sum(a * (of[task].variance + of[task].mean ** 2) for task, a in weights.items()) - mean**2
    if counts is not None:
        own = seen["given"].var(0) if count > 1 else torch.zeros(16)
        mean = (count * seen["given"].mean(0) + counts * mean) / (count + counts)
        variance = ((count - 1) * own + counts * variance) / (count - 1 + counts)
    torch.testing.assert_close(seen["output"], (seen["given"] - mean) / (variance + 1e-5).sqrt())


def test_a_superposition_moves_nothing_and_ends():
    net = with_priors()
    inputs, _ = rows(4)
    net.train()
    with net.superposed(one_hot(net.tasks, "a")), pytest.raises(UsageError, match=r"call net\.eval\(\) first"):
        net(inputs)
    net.eval()
    before = {task: everything_of(net, task) for task in net.tasks}
    with net.superposed({"a": torch.tensor(0.5), "b": torch.tensor(0.5)}):
        mixed = net(inputs)
        with net.superposed(one_hot(net.tasks, "b")):
            assert torch.equal(net(inputs), outputs(net, "b", inputs))
        assert torch.equal(net(inputs), mixed)
        assert not torch.equal(outputs(net, "a", inputs), mixed)  # a task selected inside is that task
        assert torch.equal(net(inputs), mixed)
    assert torch.equal(net(inputs), outputs(net, "c", inputs))
    assert {task: everything_of(net, task) for task in net.tasks} == before


def test_mixtures_that_cannot_be():
    net = with_priors()
    for weights, message in [
        ({}, "at least one task"),
        ({"z": torch.tensor(1.0)}, "there is no task 'z'"),
        ({"a": 1.0}, "floating-point scalar tensor"),
        ({"a": torch.ones(2)}, "floating-point scalar tensor"),
        ({"a": torch.tensor(1)}, "floating-point scalar tensor"),
    ]:
        with pytest.raises(UsageError, match=message), net.superposed(weights):
            pass
    one = one_hot(net.tasks, "a")
    for counts in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="mixture_counts"), net.superposed(one, mixture_counts=counts):
            pass
