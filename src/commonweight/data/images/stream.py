"""A stream of tasks made from one set of images, each built when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.seeds import checked_seed
from commonweight.data.images.draws import Purpose, permutation
from commonweight.data.images.images import Images
from commonweight.data.images.rows import RowSet, Scaling
from commonweight.data.images.scenarios import Scenario, Setting, as_scenario, listed, whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import Tensor

    from commonweight.base.choices import Normalise


TASKS = 5
"""How many tasks a stream has if nothing says another number."""


@dataclass(eq=False, repr=False)
class TaskStream:
    """A sequence of tasks; :func:`task_stream` makes one.

    A task is built each time it is asked for, always the same, whatever was asked for before.
    """

    images: Images
    scenario: Scenario
    setting: Setting
    normalise: Normalise
    flatten: bool
    rows: int | None
    test_rows: int | None
    random_labels: frozenset[int]

    def __post_init__(self) -> None:
        self._recipes = [self.scenario.recipe(self.setting, index) for index in range(len(self))]
        self._limits = {"train": self.rows, "test": self.test_rows}
        # One order for all tasks and limits: a larger choice contains every smaller one.
        self._order = {
            part: permutation(len(self._labels_of(part)), self.setting.seed, Purpose.ROWS, int(part == "test"))
            for part, limit in self._limits.items()
            if limit is not None
        }
        self._scaling = _standard(self.images) if self.normalise == "standard" else None
        self._normalise: dict[str, Any] = {"how": self.normalise}
        if self._scaling is not None:
            self._normalise |= {"mean": list(self._scaling.mean), "sd": list(self._scaling.deviation)}
        for index in range(len(self)):
            for part in ("train", "test"):
                self._chosen(index, part)

    def __len__(self) -> int:
        return self.setting.tasks

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Task:
        if not -len(self) <= index < len(self):
            raise IndexError(f"task {index} of {len(self)}")
        index %= len(self)
        train, test = self._rows(index, "train"), self._rows(index, "test")
        return Task(self.names[index], index, train, test, self._classes(index), self._facts(index, train, test))

    def __repr__(self) -> str:
        return (
            f"TaskStream({self.images.name}, {self.scenario.name}, seed {self.setting.seed}: {', '.join(self.names)})"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(f"{index}-{recipe.word}" for index, recipe in enumerate(self._recipes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        channels, height, width = self.images.shape
        return (channels * height * width,) if self.flatten else (channels, height, width)

    @property
    def outputs(self) -> int:
        """How many outputs a network for all tasks needs."""
        return max(len(self._classes(index)) for index in range(len(self)))

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stream was made of, as plain JSON values; equal exactly for equal streams."""
        return {
            "data": self.images.name,
            "sha256": self.images.digest,
            "scenario": self.scenario.name,
            "options": dict(self.scenario.options),
            "tasks": len(self),
            "seed": self.setting.seed,
            "normalise": self._normalise,
            "flatten": self.flatten,
            "rows": self._limits["train"],
            "test_rows": self._limits["test"],
            "random_labels": sorted(self.random_labels),
        }

    def truth(self) -> np.ndarray | None:
        """Say how similar the tasks are known to be.

        Returns:
            ``[tasks, tasks]``, float64, larger is more alike, 1 on the diagonal: rotated, the cosine of the angle
            between two tasks; patch, the share of pixels outside both squares. nan between a task with random labels
            and any other, for its labels have nothing to do with its images. None where nothing is known.
        """
        known = self.scenario.truth(self.setting)
        if known is None:
            return None
        known = np.array(known, dtype=np.float64)
        for index in self.random_labels:
            own = known[index, index]
            known[index, :] = known[:, index] = np.nan
            known[index, index] = own
        return known

    def _classes(self, index: int) -> tuple[str, ...]:
        recipe = self._recipes[index]
        names = self.images.classes
        return tuple(names[number] for number in recipe.classes) if recipe.remap and recipe.classes else names

    def _chosen(self, index: int, part: str) -> Tensor | None:
        """Which rows of the part belong to the task, in the order of the data; None is all of them."""
        labels = self._labels_of(part)
        limit, classes = self._limits[part], self._recipes[index].classes
        if limit is None and classes is None:
            return None
        rows = self._order[part] if part in self._order else torch.arange(len(labels))
        if classes is not None:
            rows = rows[torch.isin(labels[rows], torch.tensor(classes))]
        if len(rows) < (1 if limit is None else limit):
            expected = "at least 1" if limit is None else f"the {limit} asked for"
            raise UsageError(
                f"task {self.names[index]} has {len(rows)} {part} rows, expected {expected}; give a smaller "
                "{argument}, or other classes",
                argument="rows" if part == "train" else "test_rows",
            )
        return rows[:limit].sort().values

    def _labels_of(self, part: str) -> Tensor:
        return self.images.train_labels if part == "train" else self.images.test_labels

    def _rows(self, index: int, part: str) -> RowSet:
        recipe, chosen = self._recipes[index], self._chosen(index, part)
        labels = self._labels_of(part)
        labels = labels.clone() if chosen is None else labels[chosen]  # the task's own: to change them changes no other
        if recipe.remap and recipe.classes is not None:
            labels = _counted_anew(labels, recipe.classes)
        if index in self.random_labels:
            labels = labels[permutation(len(labels), self.setting.seed, Purpose.LABELS, index, int(part == "test"))]
        return RowSet(
            self.images.train if part == "train" else self.images.test,
            labels,
            chosen,
            brightest=self.images.brightest,
            change=recipe.change,
            scaling=self._scaling,
            flatten=self.flatten,
            key=index,
        )

    def _facts(self, index: int, train: RowSet, test: RowSet) -> Mapping[str, Any]:
        recipe = self._recipes[index]
        facts: dict[str, Any] = {
            "data": self.images.name,
            "scenario": self.scenario.name,
            "index": index,
            "seed": self.setting.seed,
            "classes": list(recipe.classes if recipe.classes is not None else range(len(self.images.classes))),
            "labels": "original",
            **recipe.facts,
            "rows": {"train": len(train), "test": len(test)},
            "normalise": self._normalise,
            "flatten": self.flatten,
        }
        return facts | ({"labels": "random"} if index in self.random_labels else {})


def task_stream(
    images: Images,
    scenario: str | Scenario = "permuted",
    tasks: int | None = None,
    seed: int = 0,
    *,
    normalise: Normalise = "unit",
    flatten: bool = False,
    rows: int | None = None,
    test_rows: int | None = None,
    random_labels: Collection[int] = (),
    **options: Any,
) -> TaskStream:
    """Make a stream of tasks from images.

    Every choice depends on the seed, the task and what it is for, and on nothing else: not on the order of access, the
    number of workers, or the global random state. Different seeds share no draw. A rotation by a given angle, and a
    division into consecutive classes, draw nothing and are the same for every seed (see their ``order``).

    Args:
        images: The images.
        scenario: ``permuted``, ``rotated``, ``partitioned``, ``patch``, or an object.
        tasks: How many tasks; None takes as many as the scenario lists, else 5.
        seed: Names all random choices; a whole number of at least 0.
        normalise: ``unit`` leaves values from 0 to 1; ``standard`` subtracts the mean and divides by the standard
            deviation of each channel over all training images (of all classes), after the task's change.
        flatten: Whether an input is a vector.
        rows: Take this many training rows per task, chosen by the seed, the same for all tasks (with divided classes:
            of each task's own). A larger choice contains every smaller one. None takes all.
        test_rows: The same for test rows.
        random_labels: Numbers of tasks whose labels are shuffled among their rows, in both parts: a control.
        **options: Options of the scenario, where it is given by name: ``first``; ``max_angle``, ``angles``, ``order``;
            ``groups``, ``remap_labels``, ``order``; ``sizes``, ``order``.

    Returns:
        The stream.

    Raises:
        UsageError: If a name, option or number is not as said, or a task would have too few rows.

    Example:
        >>> from commonweight import open_images
        >>> stream = task_stream(open_images("digits"), "rotated", tasks=3, max_angle=90)
        >>> stream.names
        ('0-0deg', '1-45deg', '2-90deg')
        >>> stream[1].train.inputs.shape
        torch.Size([1442, 1, 8, 8])
    """
    if not isinstance(images, Images):
        raise UsageError(f"images must be Images, got {type(images).__name__}; open them with open_images(...)")
    scenario = as_scenario(scenario, options)
    count = scenario.count
    tasks = (TASKS if count is None else count) if tasks is None else tasks
    number = whole(tasks)
    if number is None or number < 1:
        raise UsageError(f"{{argument}} must be a whole number of at least 1, got {tasks!r}", argument="tasks")
    if count is not None and count != number:
        raise UsageError(
            f"{number} tasks are asked for, and the scenario lists {count}; leave tasks out, or list {number}"
        )
    if normalise not in {"unit", "standard"}:
        raise UsageError(f"{{argument}} must be 'unit' or 'standard', got {normalise!r}", argument="normalise")
    for name, limit in (("rows", rows), ("test_rows", test_rows)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise UsageError(
                f"{{argument}} must be a whole number of at least 1, or None, got {limit!r}", argument=name
            )
    controls = {task: whole(task) for task in listed("random_labels", random_labels)}
    if stray := [task for task, place in controls.items() if place not in range(number)]:
        raise UsageError(f"{{argument}} names the tasks {stray}; there are 0 to {number - 1}", argument="random_labels")
    return TaskStream(
        images,
        scenario,
        Setting(images.shape, images.classes, number, checked_seed(seed)),
        normalise=normalise,
        flatten=flatten,
        rows=rows,
        test_rows=test_rows,
        random_labels=frozenset(place for place in controls.values() if place is not None),
    )


def _counted_anew(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    place = torch.zeros(max(classes) + 1, dtype=torch.int64)
    place[list(classes)] = torch.arange(len(classes))
    return place[labels]


def _standard(images: Images) -> Scaling:
    mean, deviation = images.statistics
    if min(deviation) == 0:
        raise UsageError(
            f"a channel of {images.name} is the same in every training image, so it cannot be scaled to a standard "
            "deviation of 1; use normalise='unit'"
        )
    return Scaling(mean, deviation)


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream."""

    name: str
    """Its number and what sets it apart: ``2-45deg``; unique in the stream."""

    index: int
    train: RowSet
    test: RowSet
    classes: tuple[str, ...]
    """A label ``k`` means ``classes[k]``, and a network needs ``len(classes)`` outputs."""

    facts: Mapping[str, Any]
    """How it was made: plain JSON values."""
