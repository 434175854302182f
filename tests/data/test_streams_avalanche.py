"""Streams as Avalanche benchmarks and back, where Avalanche is installed; a clear error where it is not."""

import contextlib
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch

from commonweight import task_stream
from commonweight.base import UsageError
from commonweight.data.images import digits
from commonweight.data.images.avalanche import from_avalanche, to_avalanche


@pytest.fixture
def benchmarks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        return pytest.importorskip("avalanche.benchmarks", exc_type=ImportError)


def test_without_avalanche(monkeypatch):
    monkeypatch.setitem(sys.modules, "avalanche", None)
    monkeypatch.setitem(sys.modules, "avalanche.benchmarks", None)
    for convert in (to_avalanche, from_avalanche):
        with pytest.raises(UsageError, match=r"Avalanche cannot be imported .*pip install avalanche-lib"):
            convert(task_stream(digits(), rows=10))


class Experience:
    """What is read of an experience of Avalanche."""

    def __init__(self, labels):
        self.dataset = self
        self.rows = [(torch.full((2,), float(label)), label) for label in labels]

    def eval(self):
        return self.rows


@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (1, 2, 3, 4), (3, 7, 9, 11), (0, 1, 5, 6)])
def test_labels_of_all_experiences_have_no_gaps(monkeypatch, numbers):
    for name in ("avalanche", "avalanche.benchmarks", "avalanche.benchmarks.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    one, two, three, four = numbers
    trains, tests = ([one, two, two], [four, three]), ([two, one], [three, four, four])
    benchmark = SimpleNamespace(train_stream=[*map(Experience, trains)], test_stream=[*map(Experience, tests)])
    gaps = numbers != (0, 1, 2, 3)
    with pytest.warns(UserWarning, match="these 4 classes are counted from 0") if gaps else contextlib.nullcontext():
        tasks = from_avalanche(benchmark)
    assert [task.classes for task in tasks] == [tuple(map(str, numbers))] * 2
    assert [task.facts["classes"] for task in tasks] == [[0, 1], [2, 3]]
    for task in tasks:
        for part in (task.train, task.test):
            assert [int(task.classes[label]) for label in part.labels] == part.inputs[:, 0].tolist()
    tests[0][0] = -1
    benchmark.test_stream[0] = Experience(tests[0])
    with pytest.raises(UsageError, match="the benchmark has labels from -1 to"):
        from_avalanche(benchmark)


@pytest.mark.parametrize("scenario", ["rotated", "partitioned"])
def test_there_and_back(benchmarks, scenario):
    stream = task_stream(digits(), scenario, seed=1, rows=50, test_rows=20, normalise="standard")
    benchmark = to_avalanche(stream)
    for task, experience in zip(stream, benchmark.train_stream, strict=True):
        assert experience.task_label == task.index
        assert set(experience.classes_in_this_experience) == set(task.train.labels.tolist())
        row = experience.dataset[7]
        assert torch.equal(row[0], task.train.inputs[7])
        assert row[1:] == [int(task.train.labels[7]), task.index]
    for task, back in zip(stream, from_avalanche(benchmark), strict=True):
        for part in ("train", "test"):
            assert torch.equal(getattr(task, part).inputs, getattr(back, part).inputs)
            assert torch.equal(getattr(task, part).labels, getattr(back, part).labels)
        assert back.classes == task.classes
        assert back.index == task.index


def test_a_benchmark_made_by_avalanche(benchmarks):
    from avalanche.benchmarks.utils import as_classification_dataset

    images = digits()

    class Rows(torch.utils.data.TensorDataset):
        targets = None

    parts = []
    for pixels, labels in ((images.train, images.train_labels), (images.test, images.test_labels)):
        rows = Rows(pixels.float() / 16, labels)
        rows.targets = labels.tolist()
        parts.append(as_classification_dataset(rows))
    made = benchmarks.class_incremental_benchmark({"train": parts[0], "test": parts[1]}, num_experiences=5, seed=0)
    tasks = from_avalanche(made)
    assert sum(len(task.train) for task in tasks) == len(images.train)
    assert sorted(number for task in tasks for number in task.facts["classes"]) == list(range(10))
    assert len({task.facts["sha256"] for task in tasks}) == 5
