"""The plugin in a real strategy, where Avalanche is installed; and by itself, with what it reads of a strategy."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from commonweight import SupermaskNetwork, task_stream
from commonweight.base import UsageError
from commonweight.data.images import digits
from commonweight.data.images.avalanche import to_avalanche
from commonweight.integrations import SupermaskPlugin


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    return SupermaskNetwork(body)


def a_stream():
    return task_stream(digits(), "permuted", tasks=2, rows=400, test_rows=100)


class Rows(torch.utils.data.TensorDataset):
    """What is read of a data set of Avalanche."""

    def eval(self):
        return self


def experience(task):
    return SimpleNamespace(task_label=task.index, dataset=Rows(task.train.inputs, task.train.labels))


def strategy_of(net):
    return SimpleNamespace(
        model=net, device=torch.device("cpu"), optimizer=torch.optim.Adam(net.parameters(), lr=1e-2), experience=None
    )


def test_tasks_come_and_go():
    stream, net, plugin = a_stream(), network(), SupermaskPlugin(batch_size=64)
    strategy = strategy_of(net)
    weights = net.weights_digest()
    for task in stream:
        strategy.experience = experience(task)
        plugin.before_training_exp(strategy)
        assert net.task == str(task.index)
        (group,) = strategy.optimizer.param_groups
        assert [id(p) for p in group["params"]] == [id(p) for p in net.trainable(net.task)]
        assert not strategy.optimizer.state
        for inputs, labels in task.train.batches(50):
            strategy.optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            strategy.optimizer.step()
        plugin.after_training_exp(strategy)
        assert net.is_finished(str(task.index))
        expected = net.statistics(str(task.index))["2"].mean
        with net.on(str(task.index)), torch.no_grad():
            received = net.model[1](task.train.inputs.flatten(1)).mean(0)
        assert torch.allclose(expected, received, atol=1e-5)
    assert net.tasks == ("0", "1")
    assert net.weights_digest() == weights

    plugin.before_eval(strategy)
    strategy.experience = experience(stream[0])
    plugin.before_eval_exp(strategy)
    assert net.task == "0"
    strategy.experience = SimpleNamespace(task_label=5)
    plugin.before_eval_exp(strategy)
    assert net.tasks == ("0", "1", "5")
    plugin.after_eval(strategy)
    assert net.task == "1"


def test_what_it_cannot_do_is_refused():
    plugin, net = SupermaskPlugin(), network()
    strategy = strategy_of(net)
    strategy.experience = experience(a_stream()[0])
    plugin.before_training_exp(strategy)
    plugin.after_training_exp(strategy)
    with pytest.raises(UsageError, match="the task 0 is finished: each training experience needs a task label of its"):
        plugin.before_training_exp(strategy)
    strategy.experience = SimpleNamespace()
    with pytest.raises(UsageError, match="an experience has no task label, or several: make the benchmark with one"):
        plugin.before_training_exp(strategy)
    strategy.model = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"trains a Linear; the plugin needs SupermaskNetwork\(model\)"):
        plugin.before_eval(strategy)


@pytest.mark.filterwarnings("ignore")  # of Avalanche's own
@pytest.mark.parametrize("eval_every", [-1, 1])
def test_in_a_real_strategy(eval_every):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training = pytest.importorskip("avalanche.training", exc_type=ImportError)
        plugins = pytest.importorskip("avalanche.training.plugins", exc_type=ImportError)
        metrics = pytest.importorskip("avalanche.evaluation.metrics", exc_type=ImportError)
    stream, net = a_stream(), network()
    benchmark = to_avalanche(stream)
    weights = net.weights_digest()
    strategy = training.Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=3e-2),
        train_mb_size=50,
        train_epochs=8,
        eval_mb_size=100,
        plugins=[SupermaskPlugin()],
        evaluator=plugins.EvaluationPlugin(metrics.accuracy_metrics(experience=True), loggers=[]),
        eval_every=eval_every,
    )
    found = []
    for step in benchmark.train_stream:
        strategy.train(step)
        found.append(dict(strategy.eval(benchmark.test_stream)))
    assert net.tasks == ("0", "1")
    assert net.is_finished("0")
    assert net.is_finished("1")
    assert net.weights_digest() == weights
    first, second = (
        [value for name, value in each.items() if name.startswith("Top1_Acc_Exp/eval_phase/test_stream")]
        for each in found
    )
    assert first[0] == second[0] > 0.7  # nothing is forgotten
    assert second[1] > 0.7 > 0.4 > first[1]  # the second task was not learned yet
    for task, accuracy in zip(stream, second, strict=True):
        with net.on(str(task.index)), torch.no_grad():
            right = net.eval()(task.test.inputs).argmax(1) == task.test.labels
        assert right.float().mean().item() == pytest.approx(accuracy)
