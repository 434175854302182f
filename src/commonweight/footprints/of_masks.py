"""Supermask footprints: which weights a task switched on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn.utils.parametrize import ParametrizationList

from commonweight.base.errors import MeasurementError, check_kind
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.footprints.weight_sample import weight_sample
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from commonweight.footprints.footprint import Kind

MOVED = ", moved towards "
"""In the words for a score initialisation, stands before the numbers of the prior tasks."""


def supermask_footprint(net: SupermaskNetwork, task: str, *, flipped: bool = False, count: int = 0) -> Footprint:
    """Take a task's masks as a footprint: one bit per weight, in memory and when saved.

    Tasks that start from the same scores share most bits before any training. What they learned in common shows in the
    bits that flipped: those that differ between the mask and that of the score initialisation.

    Args:
        net: The network.
        task: The task's name. Of an unfinished one it is the mask of the moment.
        flipped: Take the flipped bits instead of the mask.
        count: Training examples behind the mask; 0 where nobody counted.

    Returns:
        A footprint of kind ``supermask``, a snapshot. Its metadata say which draw the scores started from, and towards
        those of which prior tasks they were moved (``score_initialisation``), the rule, the density of each mask, a
        digest of the frozen weights, and whether the bits are those that flipped.

    Raises:
        UsageError: If ``net`` is no supermask network, or there is no such task.

    Example:
        >>> from torch import nn
        >>> from commonweight.supermasks.network import SupermaskNetwork
        >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 2)))
        >>> net.add_task("a")
        >>> mask, moved = supermask_footprint(net, "a"), supermask_footprint(net, "a", flipped=True)
        >>> mask["0.weight"].shape, mask.metadata["score_initialisation"], moved.trace()
        (torch.Size([2, 4]), 'independent, seed 0, task 0', 0.0)
    """
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    bits = {name: net.bits(task, name) for name in net.masked}
    if flipped:
        starts = {name: net.start_bits(task, name) for name in bits}
        bits = {name: Bits(mask.packed ^ starts[name].packed, mask.shape) for name, mask in bits.items()}
    facts = {
        "rule": net.state()["options"]["rule"],
        "score_initialisation": _score_initialisation(net, task),
        "flipped": flipped,
        "density": {name: mask.count() / max(1, math.prod(mask.shape)) for name, mask in bits.items()},
    }
    return task_footprint(net, task, "supermask", PackedMasks(bits), count, facts)


def draws(score_initialisation: str) -> tuple[str, frozenset[str]]:
    """Read ``metadata["score_initialisation"]``: the draw that scores started from, and all that went into them."""
    own, _, priors = score_initialisation.partition(MOVED)
    words = own.rpartition(" ")[0]
    return own, frozenset({own} | {f"{words} {prior}" for prior in priors.split(", ") if prior})


def _score_initialisation(net: SupermaskNetwork, task: str) -> str:
    options = net.state()["options"]
    draw = f"{options['scores']}, seed {options['seed']}"
    if options["scores"] == "shared":
        return draw
    priors = ", ".join(str(net.tasks.index(prior)) for prior in net.priors(task))
    return f"{draw}, task {net.tasks.index(task)}" + (MOVED + priors if priors else "")


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
        >>> from commonweight.supermasks.network import SupermaskNetwork
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


def task_footprint(
    net: SupermaskNetwork, task: str, kind: Kind, tensors: Mapping[str, Tensor], count: int, facts: Mapping[str, Any]
) -> Footprint:
    """Make a footprint of a task, with a sample of the frozen weights by which one network is told from another."""
    sample, scale = weight_sample(_frozen_weights(net))
    state = next(each for each in net.state()["tasks"] if each["name"] == task)
    metadata = {
        "task": task,
        "finished": state["finished"],
        "model": {"name": f"supermask network, task {task}", "weights_digest": net.weights_digest()},
        **facts,
        "weight_sample_scale": scale,
    }
    return Footprint(kind, tensors, count, metadata, weight_sample=sample)


def _frozen_weights(net: SupermaskNetwork) -> Iterator[tuple[str, Tensor]]:
    for name in net.masked:
        layer, _, weight = name.rpartition(".")
        held = net.model.get_submodule(layer).get_submodule(f"parametrizations.{weight}")
        if isinstance(held, ParametrizationList):
            yield name, held.original
