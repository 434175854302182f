"""A network with frozen weights, and how it learns one task: alone, or under the influence of prior tasks."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.progress import track
from commonweight.data.images.stream import task_stream
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import Threshold, TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from commonweight.data.images import Images, TaskStream
    from commonweight.data.images.rows import RowSet
    from commonweight.data.images.stream import Task
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.plan import Optimiser, Plan
    from commonweight.supermasks.rules import MaskRule

EVALUATED = 1000
"""Rows per batch where nothing is learned; changes speed, never the result."""

LOCALISED_ROWS = 2000
"""Test images of a task, the first, that are scored with bits switched off, or re-estimate statistics: half each."""

PROBED = 4
"""Steps of a probe of how long training takes."""

LEAST_TO_TRAIN_ON = 2
"""Rows: the variance of a batch of one is not defined."""

_OPTIMISERS: Mapping[Optimiser, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}

LayerAlphas = dict[str, dict[str, float]]
"""Masked weight -> prior task -> weight of its influence."""


def multitask_fc(inputs: int, outputs: int, hidden: Sequence[int] = (300, 300), seed: int = 0) -> nn.Sequential:
    """Make a multilayer perceptron: linear, batch norm, ReLU; the last layer is linear alone. No layer has a bias."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        width = inputs
        for number, units in enumerate(hidden, start=1):
            layers[f"fc{number}"] = nn.Linear(width, units, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm1d(units)
            layers[f"relu{number}"] = nn.ReLU()
            width = units
        layers["out"] = nn.Linear(width, outputs, bias=False)
    return nn.Sequential(layers)


def make_network(plan: Plan, images: Tensor, classes: int, seed: int) -> nn.Module:
    """Make the network a plan asks for, and try it on images."""
    outputs = plan.outputs or classes
    if outputs < classes:
        raise UsageError(f"{{argument}} must be at least {classes}, one per class, got {outputs}", argument="outputs")
    if plan.model is None:
        return multitask_fc(images[0].numel(), outputs, plan.hidden, seed)
    from commonweight.models.function import load_function
    from commonweight.models.options import FUNCTION, LoadOptions

    if not FUNCTION.fullmatch(plan.model):
        raise UsageError(
            f"{{argument}} must be module:function, which returns a torch module; got {plan.model!r}", argument="model"
        )
    model = load_function(plan.model, LoadOptions(device="cpu")).model.eval()
    try:
        with torch.no_grad():
            shape = list(model(images).shape)
    except Exception as error:  # whatever a network of the user's own may do
        raise UsageError(f"{plan.model} does not take images of shape {list(images.shape)}: {error}") from error
    if len(shape) != 2 or shape[1] < classes:
        raise UsageError(f"{plan.model} must give one score per class, [rows, {classes} or more], got {shape}")
    return model.train()


def open_stream(plan: Plan, images: Images, seed: int) -> TaskStream:
    """Make the stream of one seed."""
    settings = {"permuted": (), "rotated": ("order", "max_angle"), "partitioned": ("order", "remap_labels")}
    return task_stream(
        images,
        plan.scenario,
        plan.tasks,
        plan.world(seed),
        normalise=plan.normalise,
        rows=plan.rows,
        random_labels=plan.random_labels,
        **{name: getattr(plan, name) for name in settings.get(plan.scenario, ("order",))},
    )


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
    step = 0
    measured = {step: accuracy(net, task.name, *watched)}
    net.train()
    every = (
        batch
        for epoch in range(passes * plan.epochs)
        for batch in task.train.batches(plan.batch_size, seed=seed, epoch=epoch)
        if len(batch[1]) >= LEAST_TO_TRAIN_ON
    )
    for inputs, labels in track(every, f"learning {task.name}", passes * single, "step"):
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


def rule_of(plan: Plan) -> MaskRule:
    """Give the rule that makes masks of scores."""
    return Threshold() if plan.density is None else TopK(plan.density)


def probe(plan: Plan, stream: TaskStream) -> float:
    """Time a few steps of a classic network: seconds per step."""
    images, labels = first_rows(stream[0].train, plan.batch_size)
    net = SupermaskNetwork(make_network(plan, images[:2], stream.outputs, seed=0), rule_of(plan)).to(plan.device)
    net.add_task("any")
    net.switch("any")
    optimiser = _OPTIMISERS[plan.optimiser](net.trainable("any"))
    net.train()
    for step in range(PROBED + 1):
        if step == 1:  # the first is slower
            start = time.perf_counter()
        optimiser.zero_grad()
        F.cross_entropy(net(images.to(plan.device)), labels.to(plan.device)).backward()
        optimiser.step()
    return (time.perf_counter() - start) / PROBED


def task_steps(plan: Plan, rows: int) -> int:
    """Count the optimiser steps of one pass: the plan's epochs, without a last batch of a single row."""
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
    """Choose the steps at which a curve is measured: their distances grow from the first to the last."""
    return sorted({round(total * (k / (points - 1)) ** 2) for k in range(points)})
