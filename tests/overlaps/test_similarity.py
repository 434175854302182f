"""Similarity of tasks from batch-norm means, and its null."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
from footprints.masked import trained
from reference.first_notebook import calculate_task_similarityE1, calculate_task_similarityE2
from reference.measures import task_similarity as by_definition

from commonweight.base.errors import IntegrityError, NotComparableError, UsageError
from commonweight.base.records import SEAL, sealed
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import activity_footprint
from commonweight.overlaps.similarity.means import TaskSimilarity, every_layer_similarity, first_layer_similarity


def activity(*layers):
    return Footprint("activity", {f"bn{i}.running_mean": torch.as_tensor(each) for i, each in enumerate(layers)}, 0)


def of_network(net, order=None):
    return {task: activity_footprint(net, task) for task in order or net.tasks}


def random_tasks(count=4, units=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"t{i}": activity(*(torch.randn(units, generator=generator, dtype=torch.float64) for _ in range(2)))
        for i in range(count)
    }


def test_as_the_notebook_has_it_where_every_task_is_learned():
    tasks = of_network(trained())
    means = {i: {1: f["1.running_mean"], 4: f["4.running_mean"]} for i, f in enumerate(tasks.values())}
    first, every = first_layer_similarity(tasks, draws=19), every_layer_similarity(tasks, draws=19)
    assert first.layers == ("1",)
    assert every.layers == ("1", "4")
    assert np.allclose(first.values["1"], calculate_task_similarityE1(means, 3), atol=1e-6)
    for layer, expected in calculate_task_similarityE2(means, 3).items():
        assert np.allclose(every.values[str(layer)], expected, atol=1e-6)
    assert np.array_equal(first.values["1"], every.values["1"])


def test_by_the_definition():
    tasks = random_tasks()
    found = every_layer_similarity(tasks, draws=19)
    for layer in found.layers:
        for i, a in enumerate(tasks):
            for j, b in enumerate(tasks):
                vectors = [tasks[task][f"{layer}.running_mean"].tolist() for task in (a, b)]
                assert found.values[layer][i, j] == pytest.approx(by_definition(*vectors), abs=1e-12)


def test_symmetric_1_on_the_diagonal_and_in_range_whatever_the_sign():
    ramp = torch.arange(1.0, 9.0)
    found = first_layer_similarity(
        {"x": activity(ramp), "y": activity(-3 * ramp), "z": activity(ramp.flip(0))}, draws=99
    )
    values = found.values["bn0"]
    assert np.array_equal(values, values.T)
    assert np.diagonal(values).tolist() == [1, 1, 1]
    assert values[0, 1] == pytest.approx(1)
    assert 0 < values[0, 2] < 1
    assert np.array_equal(found.p["bn0"], found.p["bn0"].T)


def test_the_order_of_tasks_permutes_it():
    net = trained()
    one, other = every_layer_similarity(of_network(net)), every_layer_similarity(of_network(net, "cab"))
    order = [2, 0, 1]
    for layer in one.layers:
        assert np.allclose(other.values[layer], one.values[layer][np.ix_(order, order)])


def test_a_zero_vector_is_undefined_and_never_similar():
    """The notebook's 0 for it would beat a similarity that is really lower."""
    found = first_layer_similarity({"x": activity(torch.ones(4)), "zero": activity(torch.zeros(4))}, draws=19)
    assert np.isnan(found.values["bn0"][0, 1])
    assert np.isnan(found.values["bn0"][1, 1])
    assert np.isnan(found.p["bn0"][0, 1])
    assert np.isnan(found.null["bn0"][0, 1])
    assert not found.beats_null("bn0")[0, 1]


def test_unrelated_vectors_do_not_beat_their_null_and_related_ones_do():
    tasks = random_tasks(count=30, units=50)
    found = first_layer_similarity(tasks)
    pairs = np.triu_indices(30, 1)
    assert found.beats_null("bn0")[pairs].mean() == pytest.approx(0.05, abs=0.025)
    assert (found.values["bn0"] > found.null["bn0"])[pairs].mean() == pytest.approx(0.05, abs=0.025)
    base = tasks["t0"]["bn0.running_mean"]
    near = first_layer_similarity({"x": activity(base), "y": activity(base + 0.5 * tasks["t1"]["bn0.running_mean"])})
    assert near.beats_null("bn0")[0, 1]
    assert near.p["bn0"][0, 1] == 0.001


def test_positive_vectors_are_alike_by_chance_and_the_null_says_so():
    """With pixels in [0, 1] all mean images are alike; a cosine of .75 then means nothing."""
    generator = torch.Generator().manual_seed(3)
    found = first_layer_similarity(
        {name: activity(torch.rand(400, generator=generator)) for name in "stuvwxyz"}, draws=199
    )
    pairs = np.triu_indices(8, 1)
    assert (found.values["bn0"][pairs] > 0.65).all()
    assert found.beats_null("bn0")[pairs].sum() <= 4  # of 28
    constant = first_layer_similarity({"x": activity(torch.ones(9)), "y": activity(2 * torch.ones(9))}, draws=19)
    assert constant.values["bn0"][0, 1] == pytest.approx(1.0)
    assert constant.p["bn0"][0, 1] == 1


def test_the_seed_decides_the_shuffles_and_nothing_else_does():
    tasks = random_tasks()
    torch.manual_seed(1)
    state, before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one, again, other = (every_layer_similarity(tasks, seed=seed, draws=50) for seed in (0, 0, 1))
    assert one.to_json() == again.to_json()
    assert one.null["bn0"][0, 1] != other.null["bn0"][0, 1]
    assert np.array_equal(one.values["bn0"], other.values["bn0"])
    assert np.array_equal(np.random.get_state()[1], state)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_refused():
    fisher = Footprint("fisher", {"w": torch.ones(2)}, 1)
    with pytest.raises(UsageError, match=r"expected footprints of kind activity, got fisher; make them with"):
        first_layer_similarity({"x": fisher, "y": fisher})
    with pytest.raises(NotComparableError):
        every_layer_similarity({"x": activity(torch.ones(2)), "y": activity(torch.ones(2), torch.ones(2))})
    for draws in (18, True, 20.0):
        with pytest.raises(UsageError, match="draws must be a whole number of at least 19"):
            first_layer_similarity({"x": activity(torch.ones(2)), "y": activity(torch.ones(2))}, draws=draws)


def test_frames_files_and_text():
    found = every_layer_similarity({**random_tasks(3), "zero": activity(torch.zeros(64), torch.zeros(64))}, draws=99)
    back = TaskSimilarity.from_json(found.to_json())
    assert back.to_json() == found.to_json()
    assert back.to_markdown() == found.to_markdown()
    frame = found.to_frame()
    assert list(frame.columns) == ["layer", "task", "other", "similarity", "null", "p"]
    assert len(frame) == 2 * 4 * 3
    assert frame["similarity"].isna().sum() == 2 * 6
    text = found.to_markdown()
    assert "Similarity of tasks at bn1: absolute cosine of the batch-norm means" in text
    assert "count that training when results are compared" in text
    assert text.count("*") > text.count("**") * 2  # some of these unrelated tasks do not beat their null
    assert "–" in text
    assert "<table>" in found._repr_html_()
    assert repr(found) == "TaskSimilarity(every_layer of t0, t1, t2, zero; 2 layers)"
    with pytest.raises(ValueError, match="read-only"):
        found.values["bn0"][0, 0] = 2
    with pytest.raises(KeyError, match="bn7"):
        found.values["bn7"]


@pytest.mark.parametrize("damage", ["not json", '{"format": "other"}', "approach", "layers"])
def test_damaged_records_are_refused(damage):
    record = json.loads(first_layer_similarity(random_tasks(2), draws=19).to_json())
    del record[SEAL]
    if damage in record:
        record[damage] = (
            [{"layer": "bn0", "similarity": [[1.0]], "null": [[1.0]], "p": [[1.0]]}] if damage == "layers" else "x"
        )
        damage = json.dumps(sealed(record))
    with pytest.raises(IntegrityError):
        TaskSimilarity.from_json(damage)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(UsageError, match="a seed must be a whole number of at least 0"):
        every_layer_similarity(random_tasks(), seed=seed, draws=19)


def test_many_tasks_have_the_null_of_few_and_take_little_memory():
    many = random_tasks(count=70, units=16)
    few = {name: many[name] for name in list(many)[:4]}
    tracemalloc.start()
    found = every_layer_similarity(many, draws=999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6  # all shuffles of one layer at once are 39 MB, and sorting them as much again
    alone = every_layer_similarity(few, draws=999)
    for layer in found.layers:
        np.testing.assert_allclose(found.null[layer][:4, :4], alone.null[layer], rtol=1e-12)
        assert np.array_equal(found.p[layer][:4, :4], alone.p[layer])
        assert np.array_equal(found.null[layer], found.null[layer].T)
        assert np.array_equal(found.p[layer], found.p[layer].T)
