"""Task streams as Avalanche benchmarks, and back. Written for Avalanche 0.6, which is not a dependency."""

from __future__ import annotations

import hashlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.data.images.images import without_gaps
from commonweight.data.images.rows import RowSet
from commonweight.data.images.stream import Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def to_avalanche(tasks: Iterable[Task]) -> Any:
    """Make an Avalanche benchmark of a stream."""
    benchmarks, utils = _avalanche()

    def dataset(rows: RowSet, place: int) -> Any:
        return utils.AvalancheDataset(
            [rows],
            data_attributes=[
                utils.DataAttribute(rows.labels.tolist(), "targets"),
                utils.DataAttribute([place] * len(rows), "targets_task_labels", use_in_getitem=True),
            ],
        )

    parts: dict[str, list[Any]] = {"train": [], "test": []}
    for place, task in enumerate(tasks):
        parts["train"].append(dataset(task.train, place))
        parts["test"].append(dataset(task.test, place))
    made = benchmarks.with_task_labels(benchmarks.benchmark_from_datasets(**parts))
    return benchmarks.with_classes_timeline(made)


def from_avalanche(benchmark: Any) -> tuple[Task, ...]:
    """Read the tasks of an Avalanche benchmark."""
    # Every row is read once and kept as float32, through the benchmark's transforms for evaluation, so without random
    # augmentations.
    _avalanche()
    train, test = ([_read(step) for step in stream] for stream in (benchmark.train_stream, benchmark.test_stream))
    if len(train) != len(test) or not train:
        raise UsageError(
            f"the benchmark has {len(train)} training and {len(test)} test experiences; expected one of each per task"
        )
    labels = torch.cat([own for part in (train, test) for _, own in part])
    classes, counted, _ = without_gaps("the benchmark", labels, labels[:0])
    each = iter(counted.split([len(own) for part in (train, test) for _, own in part]))
    train, test = ([(inputs, next(each)) for inputs, _ in part] for part in (train, test))
    return tuple(_task(index, *pair, classes) for index, pair in enumerate(zip(train, test, strict=True)))


def _avalanche() -> tuple[Any, Any]:
    try:
        return import_module("avalanche.benchmarks"), import_module("avalanche.benchmarks.utils")
    except ImportError as error:
        raise UsageError(
            f"Avalanche cannot be imported ({error}); it is an extra of its own: pip install avalanche-lib"
        ) from error


def _read(experience: Any) -> tuple[Tensor, Tensor]:
    rows = experience.dataset.eval()
    inputs, labels = [], []
    for place in range(len(rows)):
        row = rows[place]
        if not isinstance(row[0], torch.Tensor):
            raise UsageError(
                f"row {place} of an experience starts with {type(row[0]).__name__}; expected a tensor: give the "
                "benchmark an eval_transform that makes one"
            )
        inputs.append(row[0].float())
        labels.append(int(row[1]))
    if not inputs:
        raise UsageError("an experience has no rows; expected at least one")
    return torch.stack(inputs), torch.tensor(labels)


def _task(index: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: tuple[str, ...]) -> Task:
    digest = hashlib.sha256()
    for tensor in (*train, *test):
        digest.update(tensor.contiguous().numpy().data)
    facts = {
        "data": "avalanche",
        "index": index,
        "classes": sorted(set(train[1].tolist())),
        "rows": {"train": len(train[1]), "test": len(test[1])},
        "sha256": digest.hexdigest(),
    }
    return Task(f"{index}-avalanche", index, RowSet.of(*train, key=index), RowSet.of(*test, key=index), classes, facts)
