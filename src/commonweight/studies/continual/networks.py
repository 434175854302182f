"""The networks of the study: a multilayer perceptron with batch norm, or one of the user's own."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from commonweight.base.errors import UsageError
from commonweight.data.images.stream import task_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from commonweight.data.images import Images, TaskStream
    from commonweight.studies.continual.plan import Plan


MOST_BEFORE_NORM = 2
"""Rows of the batch that a network is tried on; a batch norm in training mode needs more than one."""


def multitask_fc(inputs: int, outputs: int, hidden: Sequence[int] = (300, 300), seed: int = 0) -> nn.Sequential:
    """Make a multilayer perceptron: linear, batch norm, ReLU; the last layer is linear alone. No layer has a bias.

    Args:
        inputs: Numbers per image; images are flattened.
        outputs: Output units.
        hidden: Units of the hidden layers.
        seed: Names the weights; torch's own random state stays as it is.

    Returns:
        The network, its layers named ``fc1``, ``bn1``, … and ``out``.

    Example:
        >>> [name for name, _ in multitask_fc(4, 2, (3,)).named_children()]
        ['flatten', 'fc1', 'bn1', 'relu1', 'out']
    """
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
            shape = list(model(images[:MOST_BEFORE_NORM]).shape)
    except Exception as error:  # whatever a network of the user's own may do
        given = list(images[:MOST_BEFORE_NORM].shape)
        raise UsageError(f"{plan.model} does not take images of shape {given}: {error}") from error
    if len(shape) != 2 or shape[1] < classes:
        raise UsageError(f"{plan.model} must give one score per class, [rows, {classes} or more], got {shape}")
    return model.train()


def open_stream(plan: Plan, images: Images, seed: int) -> TaskStream:
    """Make the stream of one seed."""
    options: dict[str, Any] = {}
    if plan.scenario != "permuted":
        options["order"] = plan.order
    if plan.scenario == "rotated":
        options["max_angle"] = plan.max_angle
    if plan.scenario == "partitioned":
        options["remap_labels"] = plan.remap_labels
    return task_stream(
        images,
        plan.scenario,
        plan.tasks,
        plan.world(seed),
        normalise=plan.normalise,
        rows=plan.rows,
        random_labels=plan.random_labels,
        **options,
    )
