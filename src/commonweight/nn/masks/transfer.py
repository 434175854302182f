"""Checks the alphas of a task, and turns task names into what the layers hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.errors import UsageError
from commonweight.nn.masks.layer import Influence

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


def read_alphas(
    alphas: Mapping[str, Mapping[str, float]],
    beta: float,
    *,
    task: int,
    tasks: Sequence[str],
    finished: Collection[int],
    masked: Collection[str],
) -> dict[str, Influence]:
    """Read alphas by name.

    Args:
        alphas: Masked weight -> prior task -> alpha, finite and at least 0. They are shares: only their ratios count.
        beta: Strength, from 0 to 1.
        task: Index of the task they are for.
        tasks: All names, by index.
        finished: Indices of finished tasks.
        masked: Names of masked weights.

    Returns:
        An influence for each weight that has one: none at all where beta is 0, none where every alpha is 0.

    Raises:
        UsageError: If a name is unknown, a prior task is not finished or not earlier, or a number is out of range.
    """
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
        raise UsageError(f"beta must be from 0 (classic) to 1 (prior tasks alone), got {beta!r}")
    influences = {}
    for name, row in alphas.items():
        if name not in masked:
            raise UsageError(f"alphas for {name!r}: expected names of masked weights, which are {list(masked)}")
        entries = {_prior(prior, task, tasks, finished): _alpha(name, prior, value) for prior, value in row.items()}
        positive = {index: value for index, value in entries.items() if value > 0}
        if positive and beta > 0:
            influences[name] = Influence(positive, float(beta))
    return influences


def _prior(prior: str, task: int, tasks: Sequence[str], finished: Collection[int]) -> int:
    if prior not in tasks:
        raise UsageError(f"alphas name the task {prior!r}: expected a prior task, which are {list(tasks[:task])}")
    index = tasks.index(prior)
    if index >= task:
        raise UsageError(
            f"alphas of {tasks[task]!r} name {prior!r}: expected tasks added before it, not itself or a later one"
        )
    if index not in finished:
        raise UsageError(
            f"the prior task {prior!r} is not finished, so its scores may still move; call finish({prior!r})"
        )
    return index


def _alpha(name: str, prior: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"alpha of {name!r} for {prior!r} must be a finite number of at least 0, got {value!r}")
    return float(value)
