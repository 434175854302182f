"""Similarity by probing a prior task's mask with new data."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from footprints.masked import ROWS, inputs, model, trained
from reference import masks as reference
from torch import nn

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.overlaps.similarity.probed import bhattacharyya, probed_similarity
from commonweight.supermasks.network import SupermaskNetwork


def coefficient(*numbers):
    return bhattacharyya(*(np.array([each]) for each in numbers))[0]


@pytest.mark.parametrize("numbers", [(0, 1, 0, 1), (0, 1, 2, 1), (0, 1, 0, 9), (-1, 0.5, 3, 2), (5, 1e-2, 5.1, 2e-2)])
def test_it_is_the_integral_of_the_root_of_both_densities(numbers):
    assert coefficient(*map(float, numbers)) == pytest.approx(reference.bhattacharyya(*numbers), abs=1e-6)


def test_units_that_never_vary():
    assert coefficient(1.0, 0.0, 1.0, 0.0) == 1
    assert coefficient(1.0, 0.0, 1.1, 0.0) == 0
    assert coefficient(1.0, 0.0, 1.0, 2.0) == 0
    assert coefficient(0.0, 1e-200, 0.0, 1e-200) == pytest.approx(1)


def test_own_data_are_most_similar_and_other_data_less():
    net = trained()
    found = probed_similarity(net, {task: [inputs(task)] for task in net.tasks}, draws=19)
    assert found.tasks == ("a", "b", "c")
    for layer in net.norms:
        assert np.allclose(np.diagonal(found.values[layer]), 1, atol=1e-4)
        assert (found.values[layer].argmax(axis=0) == [0, 1, 2]).all()
        assert (np.triu(found.values[layer], 1) < 0.9999).all()


def test_a_new_task_needs_no_training_and_is_a_row_without_a_column():
    net = trained()
    found = probed_similarity(net, {"new": [inputs("a")[:48], inputs("a")[48:]]}, draws=19)
    assert found.tasks == ("a", "b", "c", "new")
    for layer in found.layers:
        assert np.isnan(found.values[layer][:3]).all()
        assert np.isnan(found.values[layer][3, 3])
        assert found.values[layer][3, :3].argmax() == 0
    assert "No training on the new data was needed." in found.to_markdown()


def test_the_same_for_any_batch_size():
    net = trained()
    whole, parts = (probed_similarity(net, {"new": b}, draws=19) for b in ([ROWS], list(ROWS.split(20))))
    assert np.allclose(whole.values["4"], parts.values["4"], equal_nan=True, atol=1e-6)


def test_nothing_in_the_network_changes():
    net = copy.deepcopy(trained())
    net.train()
    net.switch("b")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items() if isinstance(tensor, torch.Tensor)}
    probed_similarity(net, {"new": [ROWS]}, draws=19)
    assert net.task == "b"
    assert net.training
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_task_that_saw_no_data_has_no_column():
    net = copy.deepcopy(trained())
    net.add_task("fresh")
    found = probed_similarity(net, {"fresh": [ROWS]}, draws=19)
    assert found.tasks == ("a", "b", "c", "fresh")
    assert np.isnan(found.values["1"][3, 3])
    assert (found.values["1"][3, :3] > 0).all()


def test_without_prior_tasks_all_is_undefined():
    net = SupermaskNetwork(model())
    found = probed_similarity(net, {"first": [ROWS]}, draws=19)
    assert np.isnan(found.values["1"]).all()


def test_shuffled_units_are_less_alike():
    found = probed_similarity(trained(), {"new": [inputs("b")]}, draws=99)
    assert found.beats_null("1")[3, 1]
    assert found.null["1"][3, 1] < found.values["1"][3, 1]


def test_what_is_refused():
    net = trained()
    with pytest.raises(UsageError, match="the batches of 'new' can be gone through only once"):
        probed_similarity(net, {"new": iter([ROWS])})
    with pytest.raises(UsageError, match="expected new task -> its batches"):
        probed_similarity(net, [ROWS])
    with pytest.raises(UsageError, match="expected new task -> its batches"):
        probed_similarity(net, {})
    bare = SupermaskNetwork(nn.Sequential(nn.Linear(12, 2)))
    with pytest.raises(MeasurementError, match="no batch norm to probe"):
        probed_similarity(bare, {"new": [ROWS]})
