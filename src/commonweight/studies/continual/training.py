"""One task learned: its mask trained alone or under the influence of prior tasks, then finished for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from commonweight.base.errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from commonweight.data.images.rows import RowSet
    from commonweight.data.images.stream import Task
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.plan import Optimiser, Plan
    from commonweight.supermasks.network import SupermaskNetwork

EVALUATED = 1000
"""Rows per batch where nothing is learned; changes speed, never the result."""

LEAST_TO_TRAIN_ON = 2
"""Rows: the variance of a batch of one is not defined."""

_OPTIMISERS: Mapping[Optimiser, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}

LayerAlphas = dict[str, dict[str, float]]
"""Masked weight -> prior task -> weight of its influence."""


@dataclass(frozen=True)
class Curve:
    """How accuracy rose while a task was learned."""

    steps: tuple[int, ...]
    """Optimiser steps, from 0."""

    accuracies: tuple[float, ...]
    """Accuracy on the watched rows there, with the running batch-norm statistics of the moment."""

    counted_from: int = 0
    """The step its area starts at: the middle for ``classic-double``, where a classic run has been spent already."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """The inputs of batches, brought to a device one by one; iterable again and again."""

    batches: Iterable[tuple[Tensor, Tensor]]
    device: str

    def __iter__(self) -> Iterator[Tensor]:
        return (inputs.to(self.device) for inputs, _ in self.batches)


def learn(net: SupermaskNetwork, task: Task, approach: Approach, alphas: LayerAlphas, plan: Plan, seed: int) -> Curve:
    """Learn one task: add it, train its scores, measure its statistics with the final mask, finish it."""
    # Without alphas, or with a strength of 0, ``transfer`` and ``initialised`` do bit for bit what ``classic`` does.
    beta = approach.strength(plan.beta)
    net.add_task(task.name)
    net.switch(task.name)
    influenced = approach.kind == "transfer" and any(alphas.values())
    if influenced:
        net.influence(alphas, beta)
    elif approach.kind == "initialised" and any(alphas.values()):
        net.start_from(alphas, beta)
    curve = train_task(net, task, plan, seed, passes=approach.passes)
    if influenced:
        net.consolidate()
    net.reestimate(task.name, OnDevice(task.train.batches(EVALUATED), plan.device))
    net.finish(task.name, keep_scores=plan.keep_scores)
    return curve


def train_task(net: SupermaskNetwork, task: Task, plan: Plan, seed: int, *, passes: int = 1) -> Curve:
    """Train the scores of the current task by cross-entropy; the optimiser sees nothing else."""
    # A last batch of a single row is left out: batch norm cannot be trained on one row.
    watched = first_rows(task.test, plan.curve_rows)
    optimiser = _OPTIMISERS[plan.optimiser](net.trainable(task.name), lr=plan.learning_rate)
    single = task_steps(plan, len(task.train))
    due = sorted({
        number * single + step for number in range(passes) for step in curve_steps(single, plan.curve_points)
    })
    measured: dict[int, float] = {}
    step = 0
    measured[0] = accuracy(net, task.name, *watched)
    net.train()
    for epoch in range(passes * plan.epochs):
        for inputs, labels in task.train.batches(plan.batch_size, seed=seed, epoch=epoch):
            if len(labels) < LEAST_TO_TRAIN_ON:
                continue
            optimiser.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(inputs.to(plan.device)), labels.to(plan.device))
            if not torch.isfinite(loss):
                raise MeasurementError(
                    f"task {task.name}: the loss is {loss.item()} at step {step}; take a smaller learning rate"
                )
            loss.backward()
            optimiser.step()
            step += 1
            if step in due:
                measured[step] = accuracy(net, task.name, *watched)
                net.train()
    net.eval()
    return Curve(tuple(measured), tuple(measured.values()), counted_from=(passes - 1) * single)


def task_steps(plan: Plan, rows: int) -> int:
    """Count the optimiser steps of one pass: the plan's epochs, without a last batch of a single row.

    Args:
        plan: Epochs and batch size.
        rows: Training rows of the task, at least 1.

    Returns:
        At least 0.

    Example:
        >>> from commonweight.studies.continual.plan import Plan
        >>> [task_steps(Plan("digits", "rotated", batch_size=50, epochs=2), rows) for rows in (100, 101, 102)]
        [4, 4, 6]
    """
    full, rest = divmod(rows, plan.batch_size)
    return plan.epochs * (full + (rest >= LEAST_TO_TRAIN_ON))


def accuracy(net: SupermaskNetwork, task: str, inputs: Tensor, labels: Tensor) -> float:
    """Measure the share of rows whose label is predicted, with the task known. Leaves the network in eval mode."""
    net.eval()
    right = 0
    device = next(net.parameters()).device
    with torch.no_grad(), net.on(task):
        for some, answers in zip(inputs.split(EVALUATED), labels.split(EVALUATED), strict=True):
            right += int((net(some.to(device)).argmax(dim=1).cpu() == answers).sum())
    return right / len(labels)


def first_rows(rows: RowSet, count: int | None) -> tuple[Tensor, Tensor]:
    """Take the first rows."""
    chosen = torch.arange(len(rows) if count is None else min(count, len(rows)))
    return rows.take(chosen), rows.labels[chosen]


def curve_steps(total: int, points: int) -> Sequence[int]:
    """Choose the steps at which a curve is measured: their distances grow from the first to the last.

    Args:
        total: Steps of training, at least 1.
        points: How many, both ends included; fewer where the steps are few.

    Returns:
        Rising steps from 0 to ``total``.

    Example:
        >>> curve_steps(100, 5)
        [0, 6, 25, 56, 100]
    """
    return sorted({round(total * (k / (points - 1)) ** 2) for k in range(points)})
