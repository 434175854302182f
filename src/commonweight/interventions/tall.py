"""TALL masks: which weights of a merge a task would take back, and what such masks share without any reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import UsageError
from commonweight.base.seeds import keyed
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.overlaps.compatible import check_named, common_parameters
from commonweight.supermasks.bits import Bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def tall_masks(
    changes: Mapping[str, Footprint], scale: float, *, permutation: int | None = None
) -> dict[str, Footprint]:
    r"""Take the weights that a task changed by more than all other tasks together did, up to a factor.

    .. math:: m_{t,k} = \left[ |\Delta_{t,k}| \ge \lambda \, \Big| \sum_{s \ne t} \Delta_{s,k} \Big| \right]

    Source: Wang et al. (2024), https://arxiv.org/abs/2405.07813, for a merge that adds up all changes. Deviation: a
    weight that the task did not change is not in its mask, so that weights that no task changed do not pass for shared.

    The Jaccard index of two such masks mostly tells :math:`\lambda`. Two changes that have nothing in common have
    :math:`\frac{2}{\pi} (\arctan \frac{1}{\lambda} - \arctan \lambda)` where they are normal and equally large: 0, .31,
    .52, .75 for 1, .6, .4, .2. Two exactly opposed ones have 1 at .4. So read it beside a null: the masks of the same
    changes after a permutation.

    Args:
        changes: At least two changes from one initialisation, by task; read a parameter at a time.
        scale: :math:`\lambda`, above 0; the paper chooses it from .2 to .6 for each task.
        permutation: Number of a permutation: the entries of every change are first exchanged within each parameter, for
            every task in another way. None for the changes as they are.

    Returns:
        By task a footprint of kind ``supermask``, one bit per weight. Its metadata record how it was chosen.

    Raises:
        UsageError: If the scale is not above 0, or a footprint is no change.
        NotComparableError: If the changes are from different initialisations, or of different parameters.

    Example:
        >>> from torch import tensor
        >>> changes = {"a": tensor([3.0, 1.0, 0.0]), "b": tensor([1.0, -1.0, 0.0])}
        >>> masks = tall_masks({task: Footprint("change", {"w": each}, 0) for task, each in changes.items()}, 0.4)
        >>> masks["a"]["w"].tolist(), masks["b"]["w"].tolist()
        ([True, True, False], [False, True, False])
    """
    check_named(changes)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise UsageError(f"the scale of a mask must be above 0, got {scale!r}")
    for task, change in changes.items():
        if change.kind != "change":
            raise UsageError(f"{task!r} must be a footprint of kind change, got {change.kind}")
    masks: dict[str, dict[str, Bits]] = {task: {} for task in changes}
    for number, name in enumerate(common_parameters(changes).parameters):
        every = torch.stack([
            _of_task(change[name], None if permutation is None else keyed(permutation, place, number))
            for place, change in enumerate(changes.values())
        ])
        others = every.sum(0) - every
        chosen = (every.abs() >= scale * others.abs()) & (every != 0)
        for task, mask in zip(changes, chosen, strict=True):
            masks[task][name] = Bits.of(mask)
    facts = {"chosen_by": "tall", "scale": scale, "tasks": list(changes), "permutation": permutation, "flipped": False}
    return {
        task: Footprint(
            "supermask", PackedMasks(masks[task]), 0, {**change.metadata, **facts}, weight_sample=change.weight_sample
        )
        for task, change in changes.items()
    }


def _of_task(change: Tensor, seed: int | None) -> Tensor:
    if seed is None:
        return change.double()
    places = torch.randperm(change.numel(), generator=torch.Generator().manual_seed(seed))
    return change.double().flatten()[places].reshape(change.shape)
