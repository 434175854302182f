"""Task inference: right where tasks are clearly different, and leaving everything as it was."""

from __future__ import annotations

import copy
import hashlib
import math
from typing import TYPE_CHECKING

import pytest
import torch
from studies.continual_parts import network, small_plan, stream_of, trained

from commonweight.base import MeasurementError, UsageError
from commonweight.supermasks.inference import METHODS, infer_task, predict, statistics_distance
from commonweight.supermasks.norm import Statistics

if TYPE_CHECKING:
    from commonweight.supermasks.network import SupermaskNetwork

PLAN = small_plan(epochs=10)


@pytest.fixture(scope="module", params=["classic", "transfer"])
def net(request: pytest.FixtureRequest) -> SupermaskNetwork:
    """A network of the classic and one of the novel approach, both with three permutations."""
    return trained(PLAN, request.param)


@pytest.fixture(scope="module")
def tests() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(task.test.inputs, task.test.labels) for task in stream_of(PLAN)]


def digest(net: SupermaskNetwork) -> str:
    found = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_clearly_different_permutations_are_told_apart(net, tests, method) -> None:
    for index, (inputs, _) in enumerate(tests):
        for batch in inputs[:150].split(50):
            assert infer_task(net, batch, method).task == net.tasks[index]


@pytest.mark.parametrize("method", ["one_shot", "binary", "lowest_entropy"])
def test_a_single_image_has_an_answer_better_than_chance(net, tests, method) -> None:
    right = [
        infer_task(net, image[None], method).task == net.tasks[index]
        for index, (inputs, _) in enumerate(tests)
        for image in inputs[:30]
    ]
    assert sum(right) / len(right) > (0.6 if method == "lowest_entropy" else 0.34)


def test_the_spread_of_a_single_image_is_not_defined(net, tests) -> None:
    with pytest.raises(MeasurementError, match="a variance needs two"):
        infer_task(net, tests[0][0][:1], "nearest_statistics")
    assert infer_task(net, tests[0][0][:5], "nearest_statistics").task == net.tasks[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes(net, tests, method, training) -> None:
    net.train(training)
    net.switch(net.tasks[1])
    before, modes = digest(net), [module.training for module in net.modules()]
    gradients = [parameter.requires_grad for parameter in net.parameters()]
    predict(net, tests[0][0][:10], method=method)
    assert digest(net) == before
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == gradients
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.task == net.tasks[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_answer_does_not_depend_on_mode_or_on_the_switches_of_torch(net, tests, method) -> None:
    inputs = tests[1][0][:7]
    expected = infer_task(net.eval(), inputs, method)
    assert infer_task(net.train(), inputs, method) == expected
    with torch.no_grad():
        assert infer_task(net, inputs, method) == expected
    with torch.inference_mode():
        assert infer_task(net, inputs * 1, method) == expected


def test_predictions_are_those_of_the_inferred_mask(net, tests) -> None:
    for index, (inputs, _) in enumerate(tests):
        found = predict(net, inputs[:50], method="one_shot")
        known = predict(net, inputs[:50], net.tasks[index])
        assert found.task == known.task
        assert torch.equal(found.logits, known.logits)
        assert known.inference is None
        net.eval()
        with torch.no_grad(), net.on(net.tasks[index]):
            assert torch.equal(known.labels, net(inputs[:50]).argmax(dim=1))
        wrong = predict(net, inputs[:50], net.tasks[index - 1])
        assert not torch.equal(wrong.logits, known.logits)


def entropy_by_loops(net: SupermaskNetwork, inputs: torch.Tensor, shares: list[float]) -> float:
    """The entropy of a superposition, unit by unit: masks mixed, statistics of inputs and mixture blended."""
    rows = inputs.flatten(1).double()
    stored = [net.statistics(task) for task in net.tasks]
    for number, name in enumerate(net.masked):
        weight = net.weight(name)
        mixed = sum(a * net.mask(task, name).double() for a, task in zip(shares, net.tasks, strict=True))
        rows = rows @ (weight.double() * mixed).T
        if number == len(net.masked) - 1:
            break
        columns = []
        for unit in range(rows.shape[1]):
            means = [float(held[net.norms[number]].mean[unit]) for held in stored]
            variances = [float(held[net.norms[number]].variance[unit]) for held in stored]
            mean = sum(a * m for a, m in zip(shares, means, strict=True))
            variance = sum(a * (v + m * m) for a, v, m in zip(shares, variances, means, strict=True)) - mean**2
            values, n = rows[:, unit], len(rows)
            spread = float(values.var()) if n > 1 else 0.0
            blended_mean = (n * float(values.mean()) + mean) / (n + 1)
            blended = ((n - 1) * spread + variance) / n
            columns.append((values - blended_mean) / math.sqrt(blended + 1e-5))
        rows = torch.stack(columns, dim=1).clamp(min=0)
    p = rows.softmax(dim=1)
    return float(-(p * p.log()).sum(dim=1).mean())


@pytest.mark.parametrize("count", [1, 10])
def test_one_shot_is_the_derivative_of_the_entropy_of_the_superposition(net, tests, count) -> None:
    inputs = tests[2][0][:count]
    found = infer_task(copy.deepcopy(net).double(), inputs.double(), "one_shot").evidence
    for index, task in enumerate(net.tasks):
        step = 1e-6
        above, below = [1 / 3] * 3, [1 / 3] * 3
        above[index] += step
        below[index] -= step
        slope = (entropy_by_loops(net, inputs, above) - entropy_by_loops(net, inputs, below)) / (2 * step)
        assert found[task] == pytest.approx(-slope, rel=1e-3, abs=1e-5)


def test_lowest_entropy_is_that_of_each_mask_alone(net, tests) -> None:
    inputs = tests[0][0][:10]
    found = infer_task(net, inputs, "lowest_entropy")
    for task in net.tasks:
        p = predict(net, inputs, task).logits.softmax(dim=1)
        entropy = float(-(p * p.log()).sum(dim=1).mean())
        assert found.evidence[task] == pytest.approx(-entropy, abs=1e-6)
    assert found.task == max(found.evidence, key=found.evidence.__getitem__)


def test_unfinished_tasks_are_not_chosen_from(tests) -> None:
    net = network(stream_of(PLAN), PLAN)
    with pytest.raises(UsageError, match="no finished task"):
        infer_task(net, tests[0][0][:1])
    net.add_task("a")
    net.finish("a")
    net.add_task("b")
    found = infer_task(net, tests[0][0][:1])
    assert found.task == "a"
    assert math.isnan(found.evidence["a"])
    with pytest.raises(UsageError, match="'b' is no finished task"):
        infer_task(net, tests[0][0][:1], tasks=["a", "b"])


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_equal_tasks_end_with_the_first(tests, method, count) -> None:
    """Masks and statistics that are the same: no gradient prefers one, and the halving still ends."""
    net = network(stream_of(PLAN), PLAN, scores="shared")
    for number in range(count):
        net.add_task(f"t{number}")
        net.finish(f"t{number}")
    found = infer_task(net, tests[0][0][:3], method)
    assert len(set(found.evidence.values())) <= 3
    assert found.task in net.tasks
    if method in {"lowest_entropy", "nearest_statistics"}:
        assert found.task == "t0"


def test_what_is_refused(net, tests) -> None:
    with pytest.raises(UsageError, match="method must be one of one_shot, binary"):
        infer_task(net, tests[0][0][:1], "entropy")
    with pytest.raises(UsageError, match="at least one input"):
        infer_task(net, tests[0][0][:0])
    with pytest.raises(UsageError, match="no task 'z'"):
        predict(net, tests[0][0][:1], "z")
    for method in METHODS:
        with pytest.raises(MeasurementError, match=r"not finite|nan or infinity"):
            infer_task(net, torch.full((2, 1, 8, 8), math.nan), method)


def test_a_network_without_batch_norm(tests) -> None:
    from commonweight.supermasks.network import SupermaskNetwork

    net = SupermaskNetwork(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    for name in ("a", "b"):
        net.add_task(name)
        net.finish(name)
    with pytest.raises(UsageError, match="needs batch norm"):
        infer_task(net, tests[0][0][:2], "nearest_statistics")
    for method in ("one_shot", "binary", "lowest_entropy"):
        assert infer_task(net, tests[0][0][:2], method).task in net.tasks


def test_the_distance_of_statistics() -> None:
    one = {"bn": Statistics(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 1.0]), 1)}
    other = {"bn": Statistics(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 1.0]), 1)}
    assert statistics_distance(one, one) == 0
    expected = ((1 - 3) ** 2 + (2 - 1) ** 2) / (1 + 1e-5) / 2
    assert statistics_distance(one, other) == pytest.approx(expected)
    assert statistics_distance(other, one) == pytest.approx(((3 - 1) ** 2 + (1 - 2) ** 2) / (4 + 1e-5) / 2)
