"""Task streams: tasks made from one set of images, for continual learning, the same on every machine."""

from commonweight.data.images.changes import Permutation, Rotation
from commonweight.data.images.images import Images, digits
from commonweight.data.images.rows import RowSet
from commonweight.data.images.scenarios import (
    SCENARIOS,
    Partitioned,
    Patched,
    Permuted,
    Recipe,
    Rotated,
    Scenario,
    Setting,
)
from commonweight.data.images.stream import Task, TaskStream

__all__ = [
    "SCENARIOS",
    "Images",
    "Partitioned",
    "Patched",
    "Permutation",
    "Permuted",
    "Recipe",
    "Rotated",
    "Rotation",
    "RowSet",
    "Scenario",
    "Setting",
    "Task",
    "TaskStream",
    "digits",
]
