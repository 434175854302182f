"""Supermask footprints: which weights a task switched on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import ParametrizationList

from commonweight.base.errors import MeasurementError, UsageError, check_kind
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.footprints.weight_sample import weight_sample
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.footprints.footprint import Kind


def supermask_footprint(
    net: SupermaskNetwork | Mapping[str, Tensor],
    task: str | None = None,
    *,
    flipped: bool = False,
    count: int = 0,
    score_initialisation: str | None = None,
) -> Footprint:
    """Take a task's masks as a footprint: one bit per weight, in memory and when saved.

    Tasks that start from the same scores share most bits before any training. What they learned in common shows in the
    bits that flipped: those that differ between the mask and that of the score initialisation.

    Args:
        net: The network; or the masks of one task from code of your own, bits by parameter name such as
            ``fc1.weight``, in the order of the model.
        task: The task's name, which a network needs. Of an unfinished one it is the mask of the moment.
        flipped: Take the flipped bits instead of the mask; of masks of your own, say that these are they.
        count: Training examples behind the mask; 0 where nobody counted.
        score_initialisation: Of masks of your own, the name of the draw that their scores started from: equal names are
            one draw, different ones are independent. Without it no level of chance is shown.

    Returns:
        A footprint of kind ``supermask``, a snapshot. Its metadata name the draw that the scores started from
        (``score_initialisation``) and, by prior task, the draws they were moved towards (``moved_towards``); equal
        names are one draw, different ones are independent. They also hold the rule, the density of each mask, a digest
        of the frozen weights, and whether the bits are those that flipped.

    Raises:
        UsageError: If ``net`` is neither, or there is no such task, or a network is told its score initialisation.
        MeasurementError: If a mask of your own holds something other than bits.

    Example:
        >>> from torch import nn, tensor
        >>> supermask_footprint({"fc.weight": tensor([[True, False]])}, score_initialisation="drawn for task a").trace()
        1.0
        >>> from commonweight.supermasks.network import SupermaskNetwork
        >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 2)))
        >>> net.add_task("a")
        >>> mask, moved = supermask_footprint(net, "a"), supermask_footprint(net, "a", flipped=True)
        >>> mask["0.weight"].shape, mask.metadata["score_initialisation"], moved.trace()
        (torch.Size([2, 4]), 'independent, seed 0, task 0', 0.0)
    """
    if isinstance(net, Mapping):
        _check_own(net, count, task=task, score_initialisation=score_initialisation)
        check_kind("flipped", flipped, bool, "pass True where the bits are those that flipped")
        masks = PackedMasks.of(net)
        own: dict[str, Any] = {"score_initialisation": score_initialisation, "task": task}
        known = {name: value for name, value in own.items() if value is not None}
        return Footprint("supermask", masks, count, {**known, "flipped": flipped, "density": _densities(net)})
    if score_initialisation is not None:
        raise UsageError("score_initialisation is for masks of your own: a network knows it; leave it out")
    task = _known(net, task)
    bits = {name: net.bits(task, name) for name in net.masked}
    if flipped:
        starts = {name: net.start_bits(task, name) for name in bits}
        bits = {name: Bits(mask.packed ^ starts[name].packed, mask.shape) for name, mask in bits.items()}
    facts = {
        "rule": net.state()["options"]["rule"],
        "score_initialisation": _draw(net, task),
        "moved_towards": {prior: _draw(net, prior) for prior in net.priors(task)},
        "flipped": flipped,
        "density": _densities({name: mask.unpack() for name, mask in bits.items()}),
    }
    return task_footprint(net, task, "supermask", PackedMasks(bits), count, facts)


def _check_own(tensors: Mapping[str, Any], count: Any, **words: Any) -> None:
    """Check what code of the user's own gives."""
    for name, tensor in tensors.items():
        check_kind(repr(name), tensor, Tensor, "make it one with torch.as_tensor(...)")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            kind = "meta" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
            raise MeasurementError(f"{name} must be a dense tensor of real numbers, got {kind}; use to_dense()")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise UsageError(f"count must be a whole number of at least 0, got {count!r}")
    for what, word in words.items():
        if word is not None:
            check_kind(what, word, str, "name it by text")


def _densities(masks: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(mask.detach().sum()) / max(1, mask.numel()) for name, mask in masks.items()}


def _known(net: SupermaskNetwork, task: str | None) -> str:
    """Check that a network and a task are given."""
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model), or pass tensors by name")
    if task is None:
        raise UsageError(f"a network needs a task, one of {', '.join(net.tasks) or 'none yet'}")
    return task


def _draw(net: SupermaskNetwork, task: str) -> str:
    """Name the draw that a task's scores started from."""
    options = net.state()["options"]
    draw = f"{options['scores']}, seed {options['seed']}"
    return draw if options["scores"] == "shared" else f"{draw}, task {net.tasks.index(task)}"


MEAN = "running_mean"


def activity_footprint(
    net: SupermaskNetwork | Mapping[str, Tensor], task: str | None = None, *, count: int = 0
) -> Footprint:
    """Take a task's batch-norm means as a footprint: one vector per batch norm, in the order of the model.

    Running means are averages of the last batches, taken while the mask still moved: call
    ``net.reestimate(task, batches)`` before the task is finished, so that they belong to its final mask.

    Args:
        net: The network; or the means of one task from code of your own, a vector by the name of each batch norm, in
            the order of the model.
        task: The task's name, which a network needs.
        count: Examples behind the means; 0 where nobody counted.

    Returns:
        A footprint of kind ``activity``, a snapshot, with one tensor ``<batch norm>.running_mean`` per batch norm.

    Raises:
        UsageError: If ``net`` is neither, or there is no such task.
        MeasurementError: If means are not finite, or the network has no batch norm, or the task's statistics have seen
            no batch yet: their means are then all 0, and would pass for a measurement.

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
    if isinstance(net, Mapping):
        _check_own(net, count, task=task)
        for name, mean in net.items():
            if not mean.is_floating_point() or mean.dim() != 1 or not mean.numel():
                raise MeasurementError(
                    f"{name} must be a vector of real numbers, got {mean.dtype} of shape {list(mean.shape)}; give the "
                    "running means of a batch norm"
                )
            if not mean.isfinite().all():
                raise MeasurementError(
                    f"{name} holds nan or infinity, expected finite means; look at the task's training"
                )
        facts = {} if task is None else {"task": task}
        return Footprint("activity", {name: mean.detach().cpu().clone() for name, mean in net.items()}, count, facts)
    task = _known(net, task)
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
