"""Activity footprints: batch-norm means of a task."""

from __future__ import annotations

import copy

import pytest
import torch
from footprints.masked import inputs, model, train, trained
from torch import nn

from commonweight.base.errors import MeasurementError
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import activity_footprint
from commonweight.overlaps.table.table import overlap
from commonweight.supermasks.network import SupermaskNetwork


def test_the_means_are_those_of_the_task_in_model_order():
    net = trained()
    found = activity_footprint(net, "b", count=96)
    assert found.names == ("1.running_mean", "4.running_mean")
    assert found.layers == net.norms
    for norm in net.norms:
        assert torch.equal(found[f"{norm}.running_mean"], net.statistics("b")[norm].mean)
    assert not torch.equal(found["1.running_mean"], net.statistics("a")["1"].mean)
    assert found.metadata["batches"] == {norm: net.statistics("b")[norm].batches for norm in net.norms}


def test_two_norms_under_one_module_are_two_layers():
    found = Footprint(
        "activity", {"block.first.running_mean": torch.ones(4), "block.second.running_mean": torch.ones(4)}, 0
    )
    assert found.layers == ("block.first", "block.second")


def test_a_task_that_saw_no_batch_is_refused_and_not_given_as_zeros():
    net = SupermaskNetwork(model())
    net.add_task("a")
    with pytest.raises(MeasurementError, match=r"task 'a' has seen no batch: the means of 1, 4 are still 0; train it"):
        activity_footprint(net, "a")
    net.reestimate("a", [inputs("a")])
    assert activity_footprint(net, "a").trace() != 0


def test_a_network_without_batch_norm():
    net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 2)))
    net.add_task("a")
    with pytest.raises(MeasurementError, match="the network has no batch norm"):
        activity_footprint(net, "a")


def test_later_tasks_do_not_move_it(tmp_path):
    net = copy.deepcopy(trained())
    before = activity_footprint(net, "a")
    kept = before["1.running_mean"].clone()
    net.add_task("d")
    net.switch("d")
    net.train()
    net(inputs("b"))
    assert torch.equal(activity_footprint(net, "a")["1.running_mean"], kept)
    assert torch.equal(before["1.running_mean"], kept)
    back = Footprint.load(before.save(tmp_path / "f"))
    assert back.kind == "activity"
    assert torch.equal(back["1.running_mean"], kept)


def test_identical_tasks_are_alike_and_others_are_not():
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(SupermaskNetwork(model()))
        train(nets[-1], "a")
    same = overlap({"one": activity_footprint(nets[0], "a"), "two": activity_footprint(nets[1], "a")})
    assert same.pooled[0, 1] == pytest.approx(1.0, abs=1e-12)
    tasks = overlap({task: activity_footprint(trained(), task) for task in "ac"})
    assert abs(tasks.pooled[0, 1]) < 0.99


def test_means_of_ones_own_are_a_footprint_too():
    mean = torch.tensor([1.0, 0.0])
    a = activity_footprint({"bn.running_mean": mean}, "a", count=8)
    mean[0] = 5.0
    b = activity_footprint({"bn.running_mean": torch.tensor([1.0, 1.0])})
    assert (a.count, a.metadata, b.metadata) == (8, {"task": "a"}, {})
    assert overlap({"a": a, "b": b}).pooled[0, 1] == pytest.approx(0.5**0.5)
