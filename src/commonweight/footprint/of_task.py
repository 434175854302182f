"""What footprints of a task in a supermask network have in common: whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.utils.parametrize import ParametrizationList

from commonweight.footprint.footprint import Footprint
from commonweight.footprint.weight_sample import weight_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from commonweight.footprint.footprint import Kind
    from commonweight.nn.masks.network import SupermaskNetwork


def task_footprint(
    net: SupermaskNetwork, task: str, kind: Kind, tensors: Mapping[str, Tensor], count: int, facts: Mapping[str, Any]
) -> Footprint:
    """Make a footprint of a task, with a sample of the frozen weights by which one network is told from another.

    Args:
        net: The network.
        task: The task's name.
        kind: Kind of the footprint.
        tensors: What it holds.
        count: Training examples behind it; 0 where nobody counted.
        facts: Metadata of its kind.

    Returns:
        The footprint.
    """
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
