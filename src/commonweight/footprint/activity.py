"""Activity footprints: the mean activity of every unit in front of each batch norm, as a task left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.errors import MeasurementError, check_kind
from commonweight.footprint.of_task import task_footprint
from commonweight.nn.masks.network import SupermaskNetwork

if TYPE_CHECKING:
    from commonweight.footprint.footprint import Footprint

MEAN = "running_mean"


def activity_footprint(net: SupermaskNetwork, task: str, *, count: int = 0) -> Footprint:
    """Take a task's batch-norm means as a footprint: one vector per batch norm, in the order of the model.

    Running means are averages of the last batches, taken while the mask still moved: call
    ``net.reestimate(task, batches)`` before the task is finished, so that they belong to its final mask.

    Args:
        net: The network.
        task: The task's name.
        count: Examples behind the means; 0 where nobody counted.

    Returns:
        A footprint of kind ``activity``, a snapshot, with one tensor ``<batch norm>.running_mean`` per batch norm.

    Raises:
        UsageError: If ``net`` is no supermask network, or there is no such task.
        MeasurementError: If the network has no batch norm, or the task's statistics have seen no batch yet: their means
            are then all 0, and would pass for a measurement.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from commonweight.nn.masks.network import SupermaskNetwork
        >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
        >>> net.add_task("a")
        >>> net.reestimate("a", [torch.randn(8, 4)])
        >>> activity_footprint(net, "a").names
        ('1.running_mean',)
    """
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    statistics = net.statistics(task)
    if not statistics:
        raise MeasurementError(
            "the network has no batch norm, and activity is read off batch norms: expected at least one; put one "
            "behind each masked layer"
        )
    empty = [name for name, each in statistics.items() if each.batches == 0]
    if empty:
        raise MeasurementError(
            f"task {task!r} has seen no batch: the means of {', '.join(empty)} are still 0; train it, or call "
            "net.reestimate(task, batches), first"
        )
    means = {f"{name}.{MEAN}" if name else MEAN: each.mean.detach().cpu().clone() for name, each in statistics.items()}
    batches = {name: each.batches for name, each in statistics.items()}
    return task_footprint(net, task, "activity", means, count, {"batches": batches})
