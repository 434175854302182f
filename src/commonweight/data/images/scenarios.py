"""What sets the tasks of a stream apart, in one table: the pixels' order, an angle, the classes, or a central patch."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.images.changes import Change, Permutation, Rotation, cosine_and_sine
from commonweight.data.images.draws import Purpose, permutation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from commonweight.base.choices import Order


@dataclass(frozen=True)
class Setting:
    """What a scenario may know of the stream it makes tasks for."""

    shape: tuple[int, int, int]
    """Channels, height and width of the images."""

    classes: tuple[str, ...]
    """Names of the classes of the images."""

    tasks: int
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How one task is made from the images."""

    word: str
    """What names the task behind its number: ``permuted``, ``45deg``."""

    change: Change | None = None
    """What it does to every image."""

    classes: tuple[int, ...] | None = None
    """Classes whose rows belong to the task; None is all."""

    remap: bool = False
    """Whether the labels are counted from 0 within ``classes``."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the record says of the task: plain JSON values."""


class Scenario(Protocol):
    """A family of tasks made from the same images. Any object with these attributes serves."""

    @property
    def name(self) -> str:
        """A word for records."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its settings as plain JSON values."""

    @property
    def count(self) -> int | None:
        """How many tasks it has by itself; None is as many as asked for."""

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Say how a task, counted from 0, is made; it depends on the arguments alone."""

    def truth(self, setting: Setting) -> np.ndarray | None:
        """Say how similar the tasks are known to be.

        Returns:
            ``[tasks, tasks]``, float64, symmetric, 1 on the diagonal, larger is more alike; None where nothing is
            known.
        """


Thing = TypeVar("Thing")


def checked_order(order: str) -> None:
    """Check the word for an order."""
    if order not in {"given", "shuffled"}:
        raise UsageError(f"{{argument}} must be 'given' or 'shuffled', got {order!r}", argument="order")


def listed(name: str, given: Any) -> tuple[Any, ...]:
    """Take an option that lists things."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{name} must be a list, got {given!r}")
    return tuple(given)


def whole(value: Any) -> int | None:
    """Take a whole number; None for anything else, True and 3.0 among it."""
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None


def in_order(things: list[Thing], order: Order, seed: int) -> list[Thing]:
    """Put the settings of the tasks in order."""
    if order == "given":
        return things
    return [things[place] for place in permutation(len(things), seed, Purpose.SETTINGS).tolist()]


@dataclass(frozen=True)
class Permuted:
    """Every task has a pixel order of its own, drawn from the seed and the task; the labels stay.

    Source: Goodfellow et al. (2014), https://arxiv.org/abs/1312.6211.

    Args:
        first: Whether task 0 shows the images as they are, or permuted as well.

    Raises:
        UsageError: If ``first`` is another word.
    """

    first: Literal["identity", "permuted"] = "identity"
    name = "permuted"
    count = None

    def __post_init__(self) -> None:
        if self.first not in {"identity", "permuted"}:
            raise UsageError(f"first must be 'identity' or 'permuted', got {self.first!r}")

    @property
    def options(self) -> Mapping[str, Any]:
        """``first``."""
        return asdict(self)

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Draw the task's pixel order."""
        if index == 0 and self.first == "identity":
            return Recipe("identity", facts={"permutation": "identity"})
        _, height, width = setting.shape
        order = permutation(height * width, setting.seed, Purpose.PIXELS, index)
        return Recipe("permuted", Permutation(order), facts={"permutation": _digest(order)})

    def truth(self, setting: Setting) -> None:
        """Say nothing: no two tasks are known to be more alike than two others."""


@dataclass(frozen=True)
class Rotated:
    """Every task shows the images at an angle of its own, counter-clockwise; the labels stay.

    Args:
        max_angle: The largest angle, in degrees, above 0 and below 360; the angles lie evenly from 0 to it.
        angles: The angles themselves, one per task; they replace ``max_angle``.
        order: ``given``: as listed, or ascending. ``shuffled``: in an order drawn from the seed; then the previous task
            is not always the nearest.

    Raises:
        UsageError: If an angle or ``order`` is not as said.
    """

    max_angle: float = 180.0
    angles: tuple[float, ...] | None = None
    order: Order = "given"
    name = "rotated"

    def __post_init__(self) -> None:
        checked_order(self.order)
        if self.angles is not None:
            angles = listed("angles", self.angles)
            if not angles or not all(map(_is_finite, angles)):
                raise UsageError(f"angles must be finite numbers of degrees, one per task, got {angles}")
            object.__setattr__(self, "angles", tuple(map(float, angles)))
        elif not _is_finite(self.max_angle) or not 0 < self.max_angle < 360:
            raise UsageError(
                f"{{argument}} must lie between 0 and 360, both excluded, got {self.max_angle!r}; or give angles",
                argument="max_angle",
            )

    @property
    def count(self) -> int | None:
        """One task per given angle."""
        return None if self.angles is None else len(self.angles)

    @property
    def options(self) -> Mapping[str, Any]:
        """The angles, given or asked for, and their order."""
        if self.angles is not None:
            return {"angles": list(self.angles), "order": self.order}
        return {"max_angle": float(self.max_angle), "order": self.order}

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Make the task's rotation."""
        angle = self._angles(setting)[index]
        change = None if angle % 360 == 0 else Rotation(angle, *setting.shape[1:])
        return Recipe(f"{angle:g}deg", change, facts={"angle": angle})

    def truth(self, setting: Setting) -> np.ndarray:
        """Give the cosine of the angle between two tasks, to 12 decimals, so that equal angles tie."""
        angles = self._angles(setting)
        return np.array([[round(cosine_and_sine(abs(a - b))[0], 12) for b in angles] for a in angles])

    def _angles(self, setting: Setting) -> list[float]:
        if self.angles is not None:
            return in_order(list(self.angles), self.order, setting.seed)
        step = self.max_angle / max(1, setting.tasks - 1)
        return in_order([step * index for index in range(setting.tasks)], self.order, setting.seed)


@dataclass(frozen=True)
class Patched:
    """Every task permutes a central square of pixels, of a size of its own, and leaves the rest in place.

    Source: the networks of Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796, figure 2C, which compare a
    small and a large central square.

    Args:
        sizes: Side of the square in pixels, one per task; None takes evenly spaced sizes from 0 to the shorter side of
            the images. A square of side 0 or 1 changes nothing. Where image and square do not share parity, the centre
            lies half a pixel up and left.
        order: ``given``: as listed, or ascending. ``shuffled``: in an order drawn from the seed.

    Raises:
        UsageError: If a size or ``order`` is not as said.
    """

    sizes: tuple[int, ...] | None = None
    order: Order = "given"
    name = "patch"

    def __post_init__(self) -> None:
        checked_order(self.order)
        if self.sizes is not None:
            given = listed("sizes", self.sizes)
            sizes = tuple(size for size in map(whole, given) if size is not None and size >= 0)
            if not given or len(sizes) < len(given):
                raise UsageError(f"sizes must be whole numbers of at least 0, one per task, got {given}")
            object.__setattr__(self, "sizes", sizes)

    @property
    def count(self) -> int | None:
        """One task per given size."""
        return None if self.sizes is None else len(self.sizes)

    @property
    def options(self) -> Mapping[str, Any]:
        """The sizes, if given, and their order."""
        return {"sizes": None if self.sizes is None else list(self.sizes), "order": self.order}

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Draw the order of the task's central pixels."""
        size = self._sizes(setting)[index]
        _, height, width = setting.shape
        if size > min(height, width):
            raise UsageError(
                f"a square of {size} pixels does not fit into images of {height} x {width}; give smaller sizes"
            )
        share = size * size / (height * width)
        if size < 2:
            return Recipe(f"patch{size}", facts={"patch": size, "share": share, "permutation": "identity"})
        top, left = (height - size) // 2, (width - size) // 2
        places = torch.arange(height * width).view(height, width)[top : top + size, left : left + size].flatten()
        order = torch.arange(height * width)
        order[places] = places[permutation(size * size, setting.seed, Purpose.PIXELS, index)]
        return Recipe(
            f"patch{size}", Permutation(order), facts={"patch": size, "share": share, "permutation": _digest(order)}
        )

    def truth(self, setting: Setting) -> np.ndarray:
        """Give the share of pixels that lie outside both squares, and so are where they were in both tasks."""
        _, height, width = setting.shape
        areas = np.array([size * size if size > 1 else 0 for size in self._sizes(setting)], dtype=np.float64)
        known = 1 - np.maximum.outer(areas, areas) / (height * width)
        np.fill_diagonal(known, 1)
        return known

    def _sizes(self, setting: Setting) -> list[int]:
        if self.sizes is not None:
            return in_order(list(self.sizes), self.order, setting.seed)
        side, last = min(setting.shape[1:]), max(1, setting.tasks - 1)
        sizes = [(2 * side * index + last) // (2 * last) for index in range(setting.tasks)]
        return in_order(sizes, self.order, setting.seed)


def _is_finite(number: object) -> bool:
    return isinstance(number, (int, float, np.number)) and math.isfinite(number)


def _digest(order: Tensor) -> str:
    return hashlib.sha256(order.numpy().astype("<i8").tobytes()).hexdigest()[:16]


MOST_NAMED = 5
"""A task of more classes is named by their number."""


@dataclass(frozen=True)
class Partitioned:
    """Every task has classes of its own; the images stay as they are, and every class is in exactly one task.

    Args:
        groups: Numbers of the classes of each task; None cuts the classes into groups as equal as can be, larger ones
            first.
        remap_labels: False keeps the labels of the data set (a network needs an output for every class). True counts
            them from 0 within each task, in the order of its group.
        order: ``given``: consecutive classes. ``shuffled``: classes in an order drawn from the seed. With ``groups``
            only ``given``.

    Raises:
        UsageError: If groups are no lists of whole numbers or are given in a shuffled order, or ``remap_labels`` is not
            True or False.
    """

    groups: tuple[tuple[int, ...], ...] | None = None
    remap_labels: bool = False
    order: Order = "given"
    name = "partitioned"

    def __post_init__(self) -> None:
        checked_order(self.order)
        if not isinstance(self.remap_labels, bool):
            raise UsageError(f"{{argument}} must be True or False, got {self.remap_labels!r}", argument="remap_labels")
        if self.groups is None:
            return
        given = tuple(listed("each group", group) for group in listed("groups", self.groups))
        groups = tuple(tuple(number for number in map(whole, group) if number is not None) for group in given)
        if list(map(len, groups)) != list(map(len, given)):
            raise UsageError(f"groups must hold whole numbers, those of the classes, got {given}")
        object.__setattr__(self, "groups", groups)
        if self.order == "shuffled":
            raise UsageError("groups are given, so their order is too: leave order='shuffled' out, or leave groups out")

    @property
    def count(self) -> int | None:
        """One task per given group."""
        return None if self.groups is None else len(self.groups)

    @property
    def options(self) -> Mapping[str, Any]:
        """The groups, if given, their order, and whether labels are counted anew."""
        groups = None if self.groups is None else [list(group) for group in self.groups]
        return {"groups": groups, "remap_labels": self.remap_labels, "order": self.order}

    def recipe(self, setting: Setting, index: int) -> Recipe:
        """Choose the task's classes."""
        chosen = self._groups(setting)[index]
        labels = "remapped" if self.remap_labels else "original"
        word = "classes" + "-".join(map(str, chosen)) if len(chosen) <= MOST_NAMED else f"{len(chosen)}classes"
        return Recipe(word, classes=chosen, remap=self.remap_labels, facts={"labels": labels})

    def truth(self, setting: Setting) -> None:
        """Say nothing: how alike classes look is not known."""

    def _groups(self, setting: Setting) -> list[tuple[int, ...]]:
        total = len(setting.classes)
        if self.groups is not None:
            if sorted(number for group in self.groups for number in group) != list(range(total)):
                raise UsageError(f"groups must hold each class from 0 to {total - 1} exactly once, got {self.groups}")
            groups = list(self.groups)
        else:
            least, larger = divmod(total, setting.tasks)
            if least == 0:
                raise UsageError(f"{total} classes cannot be divided among {setting.tasks} tasks; ask for fewer tasks")
            numbers = list(range(total))
            if self.order == "shuffled":
                numbers = permutation(total, setting.seed, Purpose.CLASSES).tolist()
            starts = [least * task + min(task, larger) for task in range(setting.tasks + 1)]
            groups = [tuple(numbers[start:stop]) for start, stop in itertools.pairwise(starts)]
        if min(map(len, groups)) < 2:
            raise UsageError(
                f"a task needs at least two classes; {total} classes in {setting.tasks} tasks gives {groups}: "
                "ask for fewer tasks"
            )
        return groups


SCENARIOS: dict[str, Callable[..., Scenario]] = {
    scenario.name: scenario for scenario in (Permuted, Rotated, Partitioned, Patched)
}
"""Every scenario by its name. One of your own needs no entry: where a name is taken, a ``Scenario`` is taken, too."""


def as_scenario(scenario: str | Scenario, options: Mapping[str, Any]) -> Scenario:
    """Take a name with options, or a scenario."""
    if not isinstance(scenario, str):
        if options:
            raise UsageError(
                f"{', '.join(options)}: options belong to the scenario object that is given; set them there"
            )
        return scenario
    if scenario not in SCENARIOS:
        raise UsageError(f"no scenario {scenario!r}; {among(scenario, SCENARIOS)}")
    known = inspect.signature(SCENARIOS[scenario]).parameters
    for name in options:
        if name not in known:
            raise UsageError(f"no option {name!r} of the scenario {scenario!r}; {among(name, known)}")
    return SCENARIOS[scenario](**options)
