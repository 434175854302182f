"""Training one task after another: nothing leaks, nothing is forgotten, and no influence means classic, bit for bit."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import torch
from studies.continual_parts import network, small_plan, stream_of, trained

from commonweight.base import MeasurementError, UsageError
from commonweight.studies.continual.approaches import read_approach
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.training import accuracy, learn, make_network, multitask_fc, train_task
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import TopK

if TYPE_CHECKING:
    from commonweight.studies.continual.training import LayerAlphas

PLAN = small_plan()


def digest(net: SupermaskNetwork, task: str) -> str:
    """Everything a task owns: bits, scores, statistics."""
    found = hashlib.sha256()
    for name in net.masked:
        found.update(net.bits(task, name).packed.numpy().tobytes())
        scores = net.scores(task, name)
        found.update(b"" if scores is None else scores.numpy().tobytes())
    for held in net.statistics(task).values():
        found.update(held.mean.numpy().tobytes() + held.variance.numpy().tobytes() + bytes([held.batches % 256]))
    return found.hexdigest()


def with_prior(net: SupermaskNetwork, prior: str) -> LayerAlphas:
    return {name: {prior: 1.0} for name in net.masked}


@pytest.mark.parametrize("approach", ["transfer-beta0", "initialised-beta0"])
@pytest.mark.parametrize("given", [{}, {"density": 0.3}])
def test_no_influence_is_classic_bit_for_bit(approach, given) -> None:
    plan = small_plan(**given)
    rule = {"rule": TopK(0.3)} if given else {}
    classic, other = trained(plan, "classic", **rule), trained(plan, approach, **rule)
    assert classic.tasks == other.tasks
    for task in classic.tasks:
        assert digest(classic, task) == digest(other, task)


@pytest.mark.parametrize("approach", ["transfer", "initialised"])
def test_influence_changes_every_task_but_the_first(approach) -> None:
    classic, other = trained(PLAN, "classic"), trained(PLAN, approach)
    first, *later = classic.tasks
    assert digest(classic, first) == digest(other, first)
    for task in later:
        assert digest(classic, task) != digest(other, task)


@pytest.mark.parametrize("approach", ["classic", "transfer", "initialised"])
@pytest.mark.parametrize("keep_scores", [True, False])
def test_learning_a_task_changes_nothing_of_the_others(approach, keep_scores) -> None:
    plan = small_plan(keep_scores=keep_scores)
    stream = stream_of(plan)
    net = network(stream, plan)
    weights, before, R = net.weights_digest(), {}, []
    for index in range(len(stream)):
        alphas = with_prior(net, stream.names[index - 1]) if index and approach != "classic" else {}
        learn(net, stream[index], read_approach(approach), alphas, plan, 0)
        assert net.weights_digest() == weights
        assert {task: digest(net, task) for task in before} == before
        before[stream.names[index]] = digest(net, stream.names[index])
        tests = [stream[j].test for j in range(index + 1)]
        R.append([accuracy(net, stream.names[j], rows.inputs, rows.labels) for j, rows in enumerate(tests)])
    for j in range(len(stream)):
        assert len({R[i][j] for i in range(j, len(stream))}) == 1  # re-evaluated, and equal to the last bit
    assert len(set(before.values())) == len(before)
    assert (net.scores(stream.names[0], net.masked[0]) is None) != keep_scores


def test_training_learns(capsys) -> None:
    plan = small_plan(epochs=10, tasks=1, approaches=("classic",))
    stream = stream_of(plan)
    net = network(stream, plan)
    curve = learn(net, stream[0], read_approach("classic"), {}, plan, 0)
    assert curve.accuracies[-1] > 0.8 > 0.3 > curve.accuracies[0]
    rows = stream[0].test
    assert accuracy(net, stream.names[0], rows.inputs, rows.labels) > 0.8


def test_random_labels_cannot_be_learned() -> None:
    from commonweight import open_images
    from commonweight.studies.continual.training import open_stream

    plan = small_plan(epochs=10, tasks=1, approaches=("classic",), random_labels=(0,))
    stream = open_stream(plan, open_images("digits"), 0)
    net = network(stream, plan)
    curve = learn(net, stream[0], read_approach("classic"), {}, plan, 0)
    assert curve.accuracies[-1] < 0.3


def test_statistics_are_those_of_the_final_mask() -> None:
    plan = small_plan(tasks=1, approaches=("classic",))
    stream = stream_of(plan)
    net = network(stream, plan)
    task = stream[0]
    net.add_task(task.name)
    net.switch(task.name)
    train_task(net, task, plan, 0)
    running = net.statistics(task.name)["bn1"].mean
    other = network(stream, plan)
    learn(other, task, read_approach("classic"), {}, plan, 0)
    final = other.statistics(task.name)["bn1"]
    expected = task.train.inputs.flatten(1) @ (other.weight("fc1.weight") * other.mask(task.name, "fc1.weight")).T
    assert torch.allclose(final.mean, expected.mean(0), atol=1e-5)
    assert torch.allclose(final.variance, expected.var(0), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(running, final.mean, atol=1e-3)


def test_a_double_run_begins_as_the_single_one() -> None:
    plan = small_plan(tasks=1, approaches=("classic",), epochs=2)
    stream = stream_of(plan)
    curves = [
        learn(network(stream, plan), stream[0], read_approach(word), {}, plan, 0)
        for word in ("classic", "classic-double")
    ]
    single, double = curves
    assert double.accuracies[: len(single.steps)] == single.accuracies
    assert double.steps[-1] == 2 * single.steps[-1]
    assert (single.counted_from, double.counted_from) == (0, single.steps[-1])
    assert double.counted_from in double.steps


def test_the_order_of_rows_depends_on_the_seed_alone() -> None:
    stream = stream_of(PLAN)
    nets = [network(stream, PLAN) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        torch.rand(5)  # torch's own random state plays no part
        learn(net, stream[0], read_approach("classic"), {}, PLAN, seed)
    one, same, other = (digest(net, stream.names[0]) for net in nets)
    assert one == same != other


def test_a_last_batch_of_one_row_is_left_out() -> None:
    plan = small_plan(rows=101, tasks=1, approaches=("classic",))
    stream = stream_of(plan)
    curve = learn(network(stream, plan), stream[0], read_approach("classic"), {}, plan, 0)
    assert curve.steps[-1] == 2


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    net = SupermaskNetwork(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), Overflow()))
    with pytest.raises(MeasurementError, match="smaller learning rate"):
        learn(net, stream_of(PLAN)[0], read_approach("classic"), {}, PLAN, 0)


class Overflow(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * torch.inf


def test_the_network_is_seeded_and_leaves_the_global_random_state() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (multitask_fc(4, 2, (3,), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.fc1.weight, same.fc1.weight)
    assert not torch.equal(one.fc1.weight, other.fc1.weight)


def build() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )


def build_small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))


def test_a_network_of_the_users_own(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    stream = stream_of(PLAN)
    images = stream[0].train.inputs[:2]
    model = make_network(small_plan(hidden=Plan.hidden, model="mine:build"), images, 10, 0)
    net = SupermaskNetwork(model)
    curve = learn(net, stream[0], read_approach("classic"), {}, PLAN, 0)
    assert curve.accuracies[-1] > curve.accuracies[0]
    with pytest.raises(UsageError, match=r"one score per class, \[rows, 10 or more\], got \[2, 3\]"):
        make_network(small_plan(hidden=Plan.hidden, model="mine:build_small"), images, 10, 0)
    with pytest.raises(UsageError, match="does not take images of shape"):
        make_network(small_plan(hidden=Plan.hidden, model="mine:build_small"), images[:, :, :4], 10, 0)
    with pytest.raises(UsageError, match="must be module:function"):
        make_network(small_plan(hidden=Plan.hidden, model="mine.build"), images, 10, 0)
    with pytest.raises(UsageError, match="outputs must be at least 10, one per class, got 5"):
        make_network(small_plan(outputs=5), images, 10, 0)
