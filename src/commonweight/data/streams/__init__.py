"""Task streams: tasks made from one set of images, for continual learning, the same on every machine."""

from commonweight.data.streams.changes import Permutation, Rotation, Unchanged
from commonweight.data.streams.classes import Partitioned
from commonweight.data.streams.digits import digits
from commonweight.data.streams.images import Images
from commonweight.data.streams.opening import open_images
from commonweight.data.streams.pixels import Patched, Permuted, Rotated
from commonweight.data.streams.rows import RowSet
from commonweight.data.streams.scenarios import Recipe, Scenario, Setting
from commonweight.data.streams.stream import SCENARIOS, TaskStream, task_stream
from commonweight.data.streams.task import Task

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
    "Unchanged",
    "digits",
    "open_images",
    "task_stream",
]
