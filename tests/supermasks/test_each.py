"""One input at a time, scores that go later, statistics at the end, and what says that nothing is trained."""

import warnings

import pytest
import torch
from torch import nn

from commonweight import SupermaskNetwork, infer_task, transfer_alphas
from commonweight.base.errors import UsageError
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.supermasks import infer_each


def network(finished=("a", "b"), norm=True):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU(), nn.Linear(8, 5)]
    net = SupermaskNetwork(nn.Sequential(*layers))
    for task in finished:
        net.add_task(task)
        net.switch(task)
        net.train()(torch.randn(16, 6))
        net.finish(task)
    return net.eval()


def test_evidence_of_each_is_what_a_batch_of_it_alone_gives():
    net, inputs = network(), torch.randn(7, 6)
    found = infer_each(net, inputs)
    for row, each in enumerate(inputs):
        alone = infer_task(net, each[None], "lowest_entropy")
        assert found.evidence[row].tolist() == pytest.approx([*alone.evidence.values()], abs=1e-6)
        assert found.chosen()[row] == alone.task
    best, second = found.evidence.sort(dim=1, descending=True).values.unbind(1)
    assert torch.equal(found.margin, best - second)


def test_an_input_belongs_to_none_of_them_below_the_least_evidence():
    found = infer_each(network(), torch.randn(4, 6))
    least = found.evidence.max(dim=1).values.sort().values[1].item()
    assert found.chosen(least).count(None) == 1
    assert infer_each(network(), torch.randn(4, 6), tasks=["b"]).margin.isnan().all()


def test_what_no_task_can_be_inferred_from():
    with pytest.raises(UsageError, match="at least one input"):
        infer_each(network(), torch.ones(0, 6))
    with pytest.raises(UsageError, match="'c' is no finished task"):
        infer_each(network(), torch.ones(1, 6), tasks=["c"])


def test_finish_measures_statistics_over_the_batches():
    batches = [torch.randn(10, 6) for _ in range(3)]
    one, other = network(()), network(())
    for net in (one, other):
        net.add_task("c")
        net.switch("c")
    one.reestimate("c", batches)
    one.finish("c")
    other.finish("c", batches)
    for layer, statistics in one.statistics("c").items():
        assert torch.equal(statistics.mean, other.statistics("c")[layer].mean)


def test_scores_of_a_finished_task_can_go():
    net = network()
    before = net.mask("a", "0.weight").clone()
    assert net.scores("a", "0.weight") is not None
    net.drop_scores("a")
    assert net.scores("a", "0.weight") is None
    assert torch.equal(net.mask("a", "0.weight"), before)
    assert net.scores("b", "0.weight") is not None
    net.add_task("c")
    with pytest.raises(UsageError, match="'c' is not finished"):
        net.drop_scores("c")


def test_training_that_trains_nothing_says_so():
    net = network()
    net.switch("a")
    with pytest.warns(UserWarning, match="task 'a' is finished, so nothing is trained"):
        net.train()(torch.randn(4, 6))
    net.add_task("c")
    net.switch("c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(torch.randn(4, 6))


def test_alphas_of_similarities_of_ones_own_have_no_null():
    table = TaskSimilarity.of_matrices(("a", "b", "c"), {"bn": [[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]]})
    assert transfer_alphas(table, "c").layers == {"bn": {"a": 0.0, "b": 0.0}}
    assert transfer_alphas(table, "c", null=False).layers == {"bn": {"a": 0.0, "b": 1.0}}
    assert transfer_alphas(table, "c", null=False, per_layer=False).layers == {"": {"a": 0.0, "b": 1.0}}
    with pytest.raises(UsageError, match="expected 2 x 2 similarities"):
        TaskSimilarity.of_matrices(("a", "b"), {"bn": [[1.0]]})
