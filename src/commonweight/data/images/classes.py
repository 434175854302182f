"""The scenario that divides the classes: every task has the rows of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.data.images.draws import Purpose, permutation
from commonweight.data.images.scenarios import Order, Recipe, Setting, checked_order, listed, whole

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        """Choose the task's classes.

        Args:
            setting: The stream.
            index: The task.

        Returns:
            The recipe.

        Raises:
            UsageError: If the groups are no partition of the classes, or a task would have fewer than two.
        """
        chosen = self._groups(setting)[index]
        labels = "remapped" if self.remap_labels else "original"
        word = "classes" + "-".join(map(str, chosen)) if len(chosen) <= MOST_NAMED else f"{len(chosen)}classes"
        return Recipe(word, classes=chosen, remap=self.remap_labels, facts={"labels": labels})

    def truth(self, setting: Setting) -> None:
        """Say nothing: how alike classes look is not known.

        Args:
            setting: The stream.
        """

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
