"""Supermask footprints: which weights a task switched on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.errors import check_kind
from commonweight.footprint.of_task import task_footprint
from commonweight.footprint.packed import PackedMasks
from commonweight.nn.masks.bits import Bits
from commonweight.nn.masks.network import SupermaskNetwork

if TYPE_CHECKING:
    from commonweight.footprint.footprint import Footprint

MOVED = ", moved towards "
"""In the words for a score start, stands before the numbers of the prior tasks."""


def supermask_footprint(net: SupermaskNetwork, task: str, *, flipped: bool = False, count: int = 0) -> Footprint:
    """Take a task's masks as a footprint: one bit per weight, in memory and when saved.

    Tasks that start from the same scores share most bits before any training. What they learned in common shows in the
    bits that flipped: those that differ between the mask and that of the score start.

    Args:
        net: The network.
        task: The task's name. Of an unfinished one it is the mask of the moment.
        flipped: Take the flipped bits instead of the mask.
        count: Training examples behind the mask; 0 where nobody counted.

    Returns:
        A footprint of kind ``supermask``, a snapshot. Its metadata say which draw the scores started from, and towards
        those of which prior tasks they were moved (``score_start``), the rule, the density of each mask, a digest of
        the frozen weights, and whether the bits are those that flipped.

    Raises:
        UsageError: If ``net`` is no supermask network, or there is no such task.

    Example:
        >>> from torch import nn
        >>> from commonweight.nn.masks.network import SupermaskNetwork
        >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 2)))
        >>> net.add_task("a")
        >>> mask, moved = supermask_footprint(net, "a"), supermask_footprint(net, "a", flipped=True)
        >>> mask["0.weight"].shape, mask.metadata["score_start"], moved.trace()
        (torch.Size([2, 4]), 'independent, seed 0, task 0', 0.0)
    """
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    bits = {name: net.bits(task, name) for name in net.masked}
    if flipped:
        starts = {name: net.start_bits(task, name) for name in bits}
        bits = {name: Bits(mask.packed ^ starts[name].packed, mask.shape) for name, mask in bits.items()}
    facts = {
        "rule": net.state()["options"]["rule"],
        "score_start": _score_start(net, task),
        "flipped": flipped,
        "density": {name: mask.count() / max(1, math.prod(mask.shape)) for name, mask in bits.items()},
    }
    return task_footprint(net, task, "supermask", PackedMasks(bits), count, facts)


def draws(score_start: str) -> tuple[str, frozenset[str]]:
    """Take apart what ``metadata["score_start"]`` says.

    Args:
        score_start: The words.

    Returns:
        The draw that the scores started from, and all draws that went into them, prior tasks' included. Equal words
        mean the same draw, different ones independent draws.

    Example:
        >>> own, every = draws("independent, seed 0, task 2, moved towards 0, 1")
        >>> own, sorted(every)[:2]
        ('independent, seed 0, task 2', ['independent, seed 0, task 0', 'independent, seed 0, task 1'])
    """
    own, _, priors = score_start.partition(MOVED)
    words = own.rpartition(" ")[0]
    return own, frozenset({own} | {f"{words} {prior}" for prior in priors.split(", ") if prior})


def _score_start(net: SupermaskNetwork, task: str) -> str:
    options = net.state()["options"]
    draw = f"{options['scores']}, seed {options['seed']}"
    if options["scores"] == "shared":
        return draw
    priors = ", ".join(str(net.tasks.index(prior)) for prior in net.priors(task))
    return f"{draw}, task {net.tasks.index(task)}" + (MOVED + priors if priors else "")
