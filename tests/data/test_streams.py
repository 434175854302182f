"""Task streams: what each scenario does, that choices depend on seed and task alone, and what is refused."""

import copy
import json
import pickle
import random
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils.data import DataLoader

from commonweight import task_stream
from commonweight.base import UsageError
from commonweight.data.images import (
    SCENARIOS,
    Images,
    Partitioned,
    Patched,
    Permuted,
    Recipe,
    Rotated,
    Rotation,
    RowSet,
    digits,
)
from commonweight.data.images.draws import Purpose, permutation

SEEDS = st.integers(0, 2**63)
few = settings(max_examples=25, deadline=None)


def counting(height=5, width=6, channels=1, rows=12, classes=4, dtype=torch.uint8):
    """Images in which every pixel of a row has a value of its own, so that it can be followed."""
    pixels = torch.arange(channels * height * width).view(1, channels, height, width).repeat(rows, 1, 1, 1)
    pixels = pixels.to(dtype) if dtype == torch.uint8 else pixels.to(dtype) / pixels.max()
    labels = torch.arange(rows) % classes
    return Images(pixels, labels, pixels[:8], labels[:8], tuple("abcdefgh"[:classes]), "counting")


def bytes_of(inputs):
    return (inputs * 255).round().long()


def same(one, other):
    return all(
        torch.equal(getattr(a, what), getattr(b, what))
        for a, b in ((one.train, other.train), (one.test, other.test))
        for what in ("inputs", "labels", "source_rows")
    )


# permuted


@given(SEEDS, st.integers(1, 8), st.integers(1, 8), st.integers(1, 3))
@few
def test_a_permuted_task_has_the_same_pixels_in_one_other_order(seed, height, width, channels):
    images = counting(height, width, channels)
    inputs = bytes_of(task_stream(images, "permuted", tasks=2, seed=seed)[1].train.inputs)
    size = height * width
    assert all(torch.equal(row, inputs[0]) for row in inputs)
    order = inputs[0, 0].flatten()
    assert sorted(order.tolist()) == list(range(size))
    for channel in range(channels):
        assert torch.equal(inputs[0, channel].flatten() - channel * size, order)


def test_the_first_permuted_task_is_the_identity_unless_asked_otherwise():
    images = counting()
    assert torch.equal(bytes_of(task_stream(images, "permuted")[0].train.inputs), images.train.long())
    changed = task_stream(images, "permuted", first="permuted")
    assert not torch.equal(bytes_of(changed[0].train.inputs), images.train.long())
    assert same(changed[1], task_stream(images, Permuted())[1])
    with pytest.raises(UsageError, match="first must be 'identity' or 'permuted', got 'none'"):
        task_stream(images, "permuted", first="none")


def test_train_and_test_share_the_order_and_labels_stay():
    images = counting()
    task = task_stream(images, "permuted")[3]
    assert torch.equal(task.train.inputs[0], task.test.inputs[0])
    assert torch.equal(task.train.labels, images.train_labels)


# what a choice depends on


@given(SEEDS, st.permutations(range(5)), st.sampled_from(sorted(SCENARIOS)))
@few
def test_a_task_is_the_same_in_any_order_of_access_and_any_global_state(seed, order, scenario):
    images = digits()
    options = {} if scenario == "permuted" else {"order": "shuffled"}
    once = task_stream(images, scenario, seed=seed, rows=60, test_rows=20, random_labels={2}, **options)
    first = {index: once[index] for index in order}
    torch.manual_seed(len(order))
    random.seed(1)
    np.random.seed(2)
    again = task_stream(images, scenario, seed=seed, rows=60, test_rows=20, random_labels={2}, **options)
    assert once.names == again.names
    assert once.facts == again.facts
    assert all(same(first[index], again[index]) for index in range(5))
    assert all(first[index].facts == again[index].facts for index in range(5))


def test_building_a_task_leaves_the_global_random_state_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for scenario in SCENARIOS:
        task = task_stream(digits(), scenario, rows=50, random_labels={1})[1]
        list(task.train.batches(16, seed=0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


@given(SEEDS, SEEDS)
@few
def test_no_two_seeds_or_tasks_share_a_permutation(one, other):
    streams = [task_stream(counting(), "permuted", seed=seed) for seed in {one, other, one + 1}]
    drawn = [stream[index].facts["permutation"] for stream in streams for index in range(1, 5)]
    assert len(set(drawn)) == len(drawn)


def test_the_next_task_of_a_seed_is_not_a_task_of_the_next_seed():
    for scenario, options in (("permuted", {"first": "permuted"}), ("patch", {"sizes": (4, 4, 4)})):
        streams = [task_stream(counting(), scenario, tasks=3, seed=seed, **options) for seed in range(3)]
        found = [task.train.inputs for stream in streams for task in stream]
        assert not any(torch.equal(a, b) for a, b in combinations(found, 2))


def test_the_draws_are_those_of_every_release():
    assert permutation(8, 0, Purpose.PIXELS, 1).tolist() == [3, 4, 0, 6, 5, 2, 7, 1]
    assert task_stream(digits(), seed=0)[1].facts["permutation"] == "7f4e898064c49fbf"


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0", None])
def test_a_seed_is_a_whole_number_from_0(seed):
    with pytest.raises(UsageError, match="a seed must be a whole number of at least 0"):
        task_stream(counting(), seed=seed)


# rotated


@pytest.mark.parametrize("turns", range(-2, 6))
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_quarter_turns_of_squares_are_exact(turns, side):
    images = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Rotation(90 * turns, side, side)(images), torch.rot90(images, turns, (2, 3)))


@given(st.floats(-720, 720), st.integers(1, 9), st.integers(1, 9))
@few
def test_a_rotation_is_scipys(angle, height, width):
    images = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(1))
    wanted = ndimage.rotate(images.double().numpy(), angle, (3, 2), reshape=False, order=1, mode="grid-constant")
    found = Rotation(angle, height, width)(images)
    assert np.allclose(found, wanted, atol=1e-5)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6


def test_rotated_tasks_have_even_angles():
    images = counting(6, 6)
    stream = task_stream(images, "rotated", tasks=4, max_angle=90)
    assert [task.facts["angle"] for task in stream] == [0, 30, 60, 90]
    assert torch.equal(bytes_of(stream[0].train.inputs), images.train.long())
    assert torch.equal(bytes_of(stream[3].train.inputs), torch.rot90(images.train, 1, (2, 3)).long())
    full = task_stream(images, "rotated", angles=(360, 0, 90, 450))
    assert same(full[0], full[1])
    assert same(full[2], full[3])
    assert not same(full[0], full[2])
    assert [task.facts["angle"] for task in task_stream(images, "rotated", tasks=1)] == [0]


def test_the_truth_of_rotations_is_the_cosine():
    truth = task_stream(counting(), "rotated", angles=(0, 60, 90, 180, 350)).truth()
    assert np.allclose(truth[0], [1, 0.5, 0, -1, np.cos(np.radians(10))])
    assert np.array_equal(truth, truth.T)
    assert truth[0, 2] == 0


def test_shuffled_angles_are_the_same_angles_in_the_seeds_order():
    angles = [
        tuple(task.facts["angle"] for task in task_stream(counting(), "rotated", seed=seed, order="shuffled"))
        for seed in range(6)
    ]
    assert {tuple(sorted(found)) for found in angles} == {(0, 45, 90, 135, 180)}
    assert len(set(angles)) > 3


# patch


@given(SEEDS, st.integers(2, 8), st.integers(2, 8), st.data())
@few
def test_a_patch_permutes_the_central_square_alone(seed, height, width, data):
    size = data.draw(st.integers(0, min(height, width)))
    images = counting(height, width)
    found = bytes_of(task_stream(images, Patched(sizes=(size,)), seed=seed)[0].train.inputs)[0, 0]
    original = images.train[0, 0].long()
    top, left = (height - size) // 2, (width - size) // 2
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : top + size, left : left + size] = True
    assert torch.equal(found[~inside], original[~inside])
    assert sorted(found[inside].tolist()) == sorted(original[inside].tolist())


def test_a_patch_changes_something_and_says_how_much():
    stream = task_stream(counting(6, 6), "patch", sizes=(0, 1, 3, 6))
    changed = [not torch.equal(task.train.inputs, stream[0].train.inputs) for task in stream]
    assert changed == [False, False, True, True]
    assert [task.facts["share"] for task in stream] == [0, 1 / 36, 0.25, 1]
    assert np.allclose(stream.truth()[0], [1, 1, 0.75, 0])
    assert np.allclose(stream.truth()[2], [0.75, 0.75, 1, 0])
    assert [task.facts["patch"] for task in task_stream(counting(6, 6), "patch")] == [0, 2, 3, 5, 6]


# partitioned


@given(SEEDS, st.integers(1, 4), st.booleans(), st.sampled_from(["given", "shuffled"]))
@few
def test_a_partition_covers_every_row_once(seed, tasks, remap, order):
    images = digits()
    stream = task_stream(images, "partitioned", tasks=tasks, seed=seed, remap_labels=remap, order=order)
    assert sorted(number for task in stream for number in task.facts["classes"]) == list(range(10))
    assert sorted(torch.cat([task.train.source_rows for task in stream]).tolist()) == list(range(len(images.train)))
    for task in stream:
        original = images.train_labels[task.train.source_rows]
        assert [task.classes[label] for label in task.train.labels] == [str(label) for label in original.tolist()]
        assert set(task.test.labels.tolist()) == set(task.train.labels.tolist())
        assert len(task.classes) == (len(task.facts["classes"]) if remap else 10)
        assert task.facts["labels"] == ("remapped" if remap else "original")


def test_groups_of_classes_can_be_given():
    stream = task_stream(digits(), "partitioned", groups=((7, 1), (0, 2, 3), (4, 5, 6, 8, 9)), remap_labels=True)
    assert stream.names == ("0-classes7-1", "1-classes0-2-3", "2-classes4-5-6-8-9")
    assert stream[0].classes == ("7", "1")
    assert stream.outputs == 5
    assert task_stream(digits(), "partitioned").outputs == 10
    assert task_stream(digits(), "partitioned", tasks=1).names == ("0-10classes",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": ((0, 1), (2, 3))},
            r"groups must hold each class from 0 to 9 exactly once, got \(\(0, 1\), \(2, 3\)\)",
        ),
        ({"groups": ((0, 1, 2, 3, 4), (4, 5, 6, 7, 8, 9))}, "exactly once"),
        ({"groups": (tuple(range(9)), (9,))}, "a task needs at least two classes"),
        ({"tasks": 6}, "a task needs at least two classes; 10 classes in 6 tasks"),
        ({"tasks": 11}, "10 classes cannot be divided among 11 tasks; ask for fewer tasks"),
        ({"groups": ((0, 1),), "order": "shuffled"}, "groups are given, so their order is too"),
    ],
)
def test_a_partition_that_is_none(options, message):
    with pytest.raises(UsageError, match=message):
        task_stream(digits(), "partitioned", **options)


# options of all


@given(SEEDS, st.sampled_from(sorted(SCENARIOS)))
@few
def test_random_labels_are_the_same_labels_elsewhere(seed, scenario):
    plain, control = (task_stream(digits(), scenario, seed=seed, random_labels=those) for those in ((), {1, 2}))
    assert same(plain[0], control[0])
    for index in (1, 2):
        for part in ("train", "test"):
            one, other = getattr(plain[index], part), getattr(control[index], part)
            assert torch.equal(one.inputs, other.inputs)
            assert not torch.equal(one.labels, other.labels)
            assert torch.equal(one.labels.sort().values, other.labels.sort().values)
    assert (plain[1].facts["labels"], control[1].facts["labels"]) == ("original", "random")
    if scenario == "permuted":
        assert not torch.equal(control[1].train.labels, control[2].train.labels)


def test_nothing_is_known_of_a_task_with_random_labels():
    truth = task_stream(counting(), "rotated", tasks=3, random_labels=[1]).truth()
    assert np.isnan(truth).tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert task_stream(counting(), "permuted").truth() is None
    assert task_stream(counting(), "partitioned", tasks=2).truth() is None


def test_fewer_rows_are_chosen_by_the_seed_and_nested():
    images = digits()
    small, large, other = (
        task_stream(images, seed=seed, rows=rows, test_rows=50) for seed, rows in ((0, 100), (0, 300), (1, 100))
    )
    chosen = [set(stream[1].train.source_rows.tolist()) for stream in (small, large, other)]
    assert [len(rows) for rows in chosen] == [100, 300, 100]
    assert chosen[0] < chosen[1]
    assert chosen[0] != chosen[2]
    assert torch.equal(small[0].train.source_rows, small[4].train.source_rows)
    assert len(small[0].test) == 50
    rows = small[0].train.source_rows
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(small[0].train.inputs, images.train[rows].float() / 16)
    divided = task_stream(images, "partitioned", rows=40)
    assert all(len(task.train) == 40 and len(set(task.train.labels.tolist())) == 2 for task in divided)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 1443}, "task 0-identity has 1442 train rows, expected the 1443 asked for; give a smaller rows"),
        ({"test_rows": 356}, "has 355 test rows, expected the 356 asked for; give a smaller test_rows"),
        ({"rows": 0}, "rows must be a whole number of at least 1, or None, got 0"),
        ({"tasks": 0}, "tasks must be a whole number of at least 1, got 0"),
        ({"tasks": 2.0}, "tasks must be"),
        ({"normalise": "zero"}, "normalise must be 'unit' or 'standard', got 'zero'"),
        ({"random_labels": [5]}, r"random_labels names the tasks \[5\]; there are 0 to 4"),
        ({"scenario": "permute"}, "no scenario 'permute'; .*did you mean 'permuted'"),
        ({"scenario": "rotated", "angle": 3}, "no option 'angle' of the scenario 'rotated'; .*did you mean 'angles'"),
        ({"scenario": "rotated", "max_angle": 360}, "max_angle must lie between 0 and 360, both excluded, got 360"),
        ({"scenario": "rotated", "angles": ()}, "angles must be finite numbers of degrees, one per task"),
        ({"scenario": "rotated", "angles": (0, float("nan"))}, "angles must be finite"),
        ({"scenario": "rotated", "angles": (0, 1), "tasks": 3}, "3 tasks are asked for, and the scenario lists 2"),
        ({"scenario": "rotated", "order": "up"}, "order must be 'given' or 'shuffled', got 'up'"),
        ({"scenario": "patch", "sizes": (9,)}, "a square of 9 pixels does not fit into images of 8 x 8"),
        ({"scenario": "patch", "sizes": (-1,)}, "sizes must be whole numbers of at least 0"),
        ({"scenario": Rotated(), "max_angle": 90}, "max_angle: options belong to the scenario object"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        task_stream(digits(), **options)


def test_a_part_without_rows_of_a_task_is_refused():
    pixels = torch.rand(8, 1, 2, 2)
    labels = torch.arange(8) % 4
    images = Images(pixels, labels, pixels, labels % 2, tuple("abcd"), "lopsided")
    with pytest.raises(UsageError, match="task 1-classes2-3 has 0 test rows, expected at least 1"):
        task_stream(images, "partitioned", tasks=2)


def test_standard_inputs_have_mean_0_and_deviation_1_per_channel():
    pixels = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 2
    for data in (pixels, pixels.float() / 255):
        images = Images(data, labels, data[:10], labels[:10], ("a", "b"), "noise")
        task = task_stream(images, "permuted", normalise="standard")[2]
        values = task.train.inputs.transpose(0, 1).flatten(1)
        assert torch.allclose(values.mean(1), torch.zeros(3), atol=1e-5)
        assert torch.allclose(values.std(1, correction=0), torch.ones(3), atol=1e-5)
        assert task.facts["normalise"]["how"] == "standard"
        assert len(task.facts["normalise"]["mean"]) == 3
    black = torch.zeros_like(pixels)
    with pytest.raises(UsageError, match="the same in every training image"):
        task_stream(Images(black, labels, black[:2], labels[:2], ("a", "b"), "black"), normalise="standard")


def test_what_a_rotation_uncovers_is_as_dark_as_black():
    images = digits()
    task = task_stream(images, "rotated", angles=(45,), normalise="standard")[0]
    mean, deviation = (value[0] for value in images.statistics)
    assert torch.allclose(task.train.inputs[:, 0, 0, 0], torch.tensor(-mean / deviation))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_are_float32_in_the_shape_asked_for(dtype):
    images = counting(dtype=dtype)
    for flatten, shape in ((False, (1, 5, 6)), (True, (30,))):
        stream = task_stream(images, "patch", flatten=flatten)
        assert stream.shape == stream[2].train.shape == shape
        assert stream[2].train.inputs.shape == (12, *shape)
        assert stream[2].train.inputs.dtype == torch.float32
    assert torch.equal(task_stream(images, "patch")[2].train.inputs.flatten(1), stream[2].train.inputs)


def test_building_a_task_does_not_touch_the_images():
    images = counting(dtype=torch.float32)
    before = images.train.clone()
    for scenario in ("permuted", "rotated", "patch"):
        for task in task_stream(images, scenario, normalise="standard"):
            task.train.inputs.mul_(2)
    assert torch.equal(images.train, before)


# rows


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_single_rows_equal_those_of_the_whole(scenario):
    def rows():
        return task_stream(digits(), scenario, normalise="standard", rows=30, seed=3)[1].train

    single, whole = rows(), rows()
    whole.inputs  # noqa: B018
    for row in (0, 7, -1):
        assert torch.equal(single[row][0], whole[row][0])
        assert single[row][1] == whole[row][1] == int(whole.labels[row])
    assert torch.equal(single.take(torch.tensor([4, 2, 2])), whole.inputs[[4, 2, 2]])
    with pytest.raises(IndexError):
        single[30]
    assert len(list(single)) == len(single) == 30


@pytest.mark.parametrize("built", [False, True])
def test_workers_give_the_same_rows_as_none(built):
    rows = task_stream(digits(), "rotated", rows=64, seed=5, random_labels={3})[3].train
    if built:
        rows.inputs  # noqa: B018
    plain, parallel = (list(DataLoader(rows, batch_size=16, num_workers=workers)) for workers in (0, 2))
    assert all(
        torch.equal(a, b) for one, other in zip(plain, parallel, strict=True) for a, b in zip(one, other, strict=True)
    )
    assert torch.equal(torch.cat([inputs for inputs, _ in plain]), rows.inputs)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_streams_and_tasks_can_be_copied_and_sent(scenario):
    stream = task_stream(digits(), scenario, rows=20)
    assert same(pickle.loads(pickle.dumps(stream))[1], stream[1])
    assert same(copy.deepcopy(stream[1]), stream[1])


@given(st.integers(1, 40), SEEDS, st.integers(0, 5))
@few
def test_batches_hold_every_row_once(size, seed, epoch):
    task = task_stream(digits(), rows=37)[1]
    batches = task.train.batches(size, seed, epoch)
    found = list(batches)
    assert len(found) == len(batches) == -(-37 // size)
    assert [len(labels) for _, labels in found[:-1]] == [size] * (len(found) - 1)
    inputs, labels = (torch.cat(column) for column in zip(*found, strict=True))
    order = [(task.train.inputs == row).flatten(1).all(1).nonzero()[0].item() for row in inputs]
    assert sorted(order) == list(range(37))
    assert torch.equal(task.train.labels[order], labels)
    again = torch.cat([labels for _, labels in batches])
    assert torch.equal(labels, again)


def test_the_order_of_batches_is_keyed():
    stream = task_stream(digits(), rows=200)

    def order(index, *key):
        return tuple(torch.cat([labels for _, labels in stream[index].train.batches(64, *key)]).tolist())

    assert order(1) == tuple(stream[1].train.labels.tolist())
    orders = [order(1, 0, 0), order(1, 0, 1), order(1, 1, 0), order(2, 0, 0), order(1)]
    assert len(set(orders)) == 5
    torch.manual_seed(3)
    assert order(1, 0, 0) == orders[0]
    for size in (0, 1.5, True):
        with pytest.raises(UsageError, match="a batch needs a whole number of at least 1 rows"):
            stream[0].train.batches(size)


def test_rows_of_your_own():
    rows = RowSet.of(torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 2]))
    assert rows.shape == (3,)
    assert [tuple(inputs.shape) for inputs, _ in rows.batches(4)] == [(4, 3), (1, 3)]
    for inputs, labels in ((torch.rand(5, 3).double(), rows.labels), (torch.rand(4, 3), rows.labels)):
        with pytest.raises(UsageError, match=r"expected float32 \[m, ...\] and int64 \[m\]"):
            RowSet.of(inputs, labels)


# the stream


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_names_and_facts(scenario):
    stream = task_stream(digits(), scenario, tasks=4, seed=2, rows=30, normalise="standard", random_labels=[1])
    assert len(stream) == 4 == len(set(stream.names))
    assert [task.name for task in stream] == list(stream.names)
    assert stream[-1].index == 3
    assert all(json.loads(json.dumps(task.facts)) == task.facts for task in stream)
    assert json.loads(json.dumps(stream.facts)) == stream.facts
    assert stream.facts != task_stream(digits(), scenario, tasks=4, seed=3, rows=30).facts
    assert stream[0].facts["rows"] == {"train": 30, "test": len(stream[0].test)}
    assert scenario in repr(stream)
    assert "30 rows" in repr(stream[0].train)
    for index in (4, -5):
        with pytest.raises(IndexError):
            stream[index]


def test_scenarios_count_their_own_tasks():
    assert len(task_stream(counting(), Rotated(angles=(0, 10, 20)))) == 3
    assert len(task_stream(counting(), Partitioned(groups=((0, 1), (2, 3))))) == 2
    assert len(task_stream(counting(), Permuted())) == 5


@dataclass(frozen=True)
class Dimmed:
    name = "dimmed"
    count = None
    options = {}  # noqa: RUF012

    def recipe(self, setting, index):
        light = 1 - index / setting.tasks
        return Recipe(f"light{light:g}", lambda images: images * light, facts={"light": light})

    def truth(self, setting):
        return None


def test_a_scenario_of_your_own():
    stream = task_stream(counting(dtype=torch.float32), Dimmed(), tasks=2)
    assert torch.equal(stream[1].train.inputs, stream[0].train.inputs / 2)
    assert stream[1].facts["light"] == 0.5
