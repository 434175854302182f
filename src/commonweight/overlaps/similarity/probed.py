"""Similarity by probing: new data through a prior task's mask, compared with what the task's own data looked like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base.errors import MeasurementError, UsageError, check_kind
from commonweight.base.names import Named
from commonweight.overlaps.similarity.means import DRAWS, TaskSimilarity, check_shuffles, permutation_null
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from commonweight.supermasks.norm import Statistics

    Array = NDArray[np.float64]


def bhattacharyya(mean: Array, variance: Array, other_mean: Array, other_variance: Array) -> Array:
    r"""Compute the Bhattacharyya coefficient of two normal distributions, unit by unit.

    .. math::
        \sqrt{\frac{2 \sigma \sigma'}{\sigma^2 + \sigma'^2}}
        \exp\left(-\frac{(\mu - \mu')^2}{4 (\sigma^2 + \sigma'^2)}\right)

    Source: Bhattacharyya (1943); the overlap of two densities, as the Fisher overlap is of two importances.

    Returns:
        From 0 to 1 (the same distribution). A unit that never varies has 1 with another such at the same place, else 0.
    """
    both = variance + other_variance
    varies = both > 0
    total = np.where(varies, both, 1.0)
    width = np.sqrt(2 * np.sqrt(variance) * np.sqrt(other_variance) / total)
    near = np.exp(-np.square(mean - other_mean) / (4 * total))
    return np.asarray(np.where(varies, width * near, mean == other_mean))


def probed_similarity(
    net: SupermaskNetwork, batches: Mapping[str, Iterable[Any]], *, seed: int = 0, draws: int = DRAWS
) -> TaskSimilarity:
    r"""Compare new data with prior tasks by passing it through each prior task's mask.

    In front of every batch norm, the mean over units of :func:`bhattacharyya` between what the new data give,
    :math:`N(\mu', \sigma'^2)`, and what the prior task stored, :math:`N(\mu, \sigma^2)`. Both went through the same
    mask, and the new task needs no training. The mask gives both sides some structure in common, so almost anything
    beats the null of shuffled units: read values beside each other.

    Args:
        net: The network. Nothing in it changes.
        batches: New task -> its batches, as ``net.probe`` takes them; each can be gone through repeatedly. A task that
            the network has is compared with itself too.
        seed: Of the null's shuffles.
        draws: How many of them.

    Returns:
        The similarities: row = new data, column = prior task. Tasks are those of the network, in its order, and then
        the new ones; where nothing was measured it is nan, as in the column of a task whose statistics have seen no
        data. Not symmetric.

    Raises:
        UsageError: If ``net`` is no supermask network, there are no batches, they can be gone through only once,
            ``seed`` is below 0, or ``draws`` below 19.
        MeasurementError: If the network has no batch norm, or batches hold too few rows.
    """
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    check_shuffles(seed, draws)
    _check_batches(batches)
    if not net.norms:
        raise MeasurementError("the network has no batch norm to probe: expected at least one behind a masked layer")
    tasks = (*net.tasks, *(task for task in batches if task not in net.tasks))
    size = (len(tasks), len(tasks))
    values, null, p = ({norm: np.full(size, np.nan) for norm in net.norms} for _ in range(3))
    for column, prior in enumerate(net.tasks):
        stored = net.statistics(prior)
        if any(each.batches == 0 for each in stored.values()):
            continue
        for task, data in batches.items():
            row = tasks.index(task)
            for layer, (norm, found) in enumerate(net.probe(prior, data).items()):
                key = (seed, row, column, layer)
                place = (row, column)
                values[norm][place], null[norm][place], p[norm][place] = _compared(found, stored[norm], key, draws)
    named = (Named("layer", matrices) for matrices in (values, null, p))
    return TaskSimilarity("probed", tasks, net.norms, *named)


def _compared(new: Statistics, stored: Statistics, seed: tuple[int, ...], draws: int) -> tuple[float, float, float]:
    mean, variance, other_mean, other_variance = (
        each.detach().double().cpu().numpy() for each in (new.mean, new.variance, stored.mean, stored.variance)
    )

    def shuffled(orders: NDArray[np.intp]) -> Array:
        return np.asarray(bhattacharyya(mean, variance, other_mean[orders], other_variance[orders]).mean(axis=1))

    observed = bhattacharyya(mean, variance, other_mean, other_variance).mean()
    null, p = permutation_null(shuffled, (1, len(mean)), np.asarray(observed), seed, draws)
    return float(observed), float(null), float(p)


def _check_batches(batches: Mapping[str, Iterable[Any]]) -> None:
    if not isinstance(batches, Mapping) or not batches:
        raise UsageError(f"expected new task -> its batches, such as {{'b': loader}}, got {type(batches).__name__}")
    for task, data in batches.items():
        if isinstance(data, Iterator):
            raise UsageError(
                f"the batches of {task!r} can be gone through only once, and each prior task goes through them: "
                "pass a list or a loader"
            )
