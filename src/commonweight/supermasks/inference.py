r"""Which task do these inputs belong to? Prediction with the task known, and with the task inferred from the inputs.

Four ways, each on one batch of inputs that all belong to one task.

======================  ================================================================================================
``one_shot``            all k masks superposed with weights :math:`a_i = 1/k`; the task is
                        :math:`\arg\max_i -\partial H / \partial a_i`, H the mean entropy of the outputs
``binary``              the same gradient, but only the better half of the masks stays, with equal weights, until one is
                        left: :math:`\lceil \log_2 k \rceil` gradients
``lowest_entropy``      each task's own mask on its own; the task with the lowest mean entropy
``nearest_statistics``  each task's own mask on its own; the task whose batch-norm statistics are nearest to those of
                        the inputs
======================  ================================================================================================

Source of the first two: Wortsman et al. (2020), SupSup, https://arxiv.org/abs/2006.14769. Deviation: the half that
stays in ``binary`` is the first :math:`\lceil n/2 \rceil` in the order of the gradient, so that it always ends; SupSup
has no batch norm in the networks whose task it infers.

A superposition of tasks normalises with its mixture's statistics blended with those of the inputs, the mixture counting
as one more value (docs/supermasks.md says why). Predictions are made with the inferred task's own statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commonweight.base.choices import METHODS, Method
from commonweight.base.errors import MeasurementError, UsageError, check_kind
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.passes import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from commonweight.supermasks.norm import Statistics

MIXTURE_COUNTS = 1
"""As how many values per unit the mixture's statistics count beside those of the inputs."""

SMALLEST_VARIANCE = 1e-5
"""Added to stored variances, as batch norm does: a unit that is always off has none."""


@dataclass(frozen=True)
class Inference:
    """Which task a batch of inputs belongs to, and why."""

    task: str
    method: Method
    evidence: Mapping[str, float]
    """Task -> evidence, larger is likelier. One-shot and binary: the negative gradient of the entropy (binary: of the
    last round a task took part in); lowest entropy: the negative entropy in nats; nearest statistics: the negative
    distance. nan where there was only one task to choose from."""


@dataclass(frozen=True)
class EachInference:
    """Which task each of several inputs belongs to, and how clearly."""

    tasks: tuple[str, ...]
    """The tasks to choose from."""

    evidence: Tensor
    """``[n, tasks]``: per input, larger is likelier."""

    @property
    def margin(self) -> Tensor:
        """How far the best task lies above the second, ``[n]``, at least 0; nan where there is one task."""
        if len(self.tasks) == 1:
            return torch.full_like(self.evidence[:, 0], math.nan)
        best, second = self.evidence.topk(2, dim=1).values.unbind(1)
        return best - second

    def chosen(self, least: float = -math.inf) -> list[str | None]:
        """Name the task of each input.

        Args:
            least: Evidence that the best task must reach; below it the input belongs to none of them.

        Returns:
            One name per input, or None. Of equals the earliest task.
        """
        best, places = self.evidence.max(dim=1)
        return [
            self.tasks[place] if value >= least else None
            for value, place in zip(best.tolist(), places.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Prediction:
    """Outputs for a batch of inputs under one task."""

    task: str
    logits: Tensor
    """Outputs ``[n, outputs]``."""

    inference: Inference | None
    """How the task was inferred; None if it was given."""

    @property
    def labels(self) -> Tensor:
        """Predicted labels ``[n]``: the largest of all outputs, which may be one that stands for no class."""
        return self.logits.argmax(dim=1)


def infer_task(
    net: SupermaskNetwork, inputs: Tensor, method: Method = "one_shot", *, tasks: Sequence[str] | None = None
) -> Inference:
    """Infer the task of a batch of inputs. Nothing of the network changes: no statistics, no mode, no current task.

    Args:
        net: A network with finished tasks.
        inputs: Inputs ``[n, …]`` of one task, n at least 1; with ``nearest_statistics`` two values per unit.
        method: ``one_shot``, ``binary``, ``lowest_entropy`` or ``nearest_statistics``.
        tasks: The tasks to choose from; None takes all finished ones.

    Returns:
        The task and the evidence. Of equals the earliest wins.

    Raises:
        UsageError: If an argument is of the wrong type, the method is unknown, there are no inputs, or a task is not a
            finished one of the network.
        MeasurementError: If the evidence is not finite, or a variance is not defined.
    """
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    names = _checked(net, inputs, tasks)
    if len(names) == 1:
        return Inference(names[0], method, MappingProxyType({names[0]: math.nan}))
    with evaluating(net), torch.inference_mode(mode=False):
        inputs = inputs.clone() if inputs.is_inference() else inputs
        task, evidence = _BY_METHOD[method](net, inputs, names)
    return Inference(task, method, MappingProxyType(evidence))


def infer_each(net: SupermaskNetwork, inputs: Tensor, *, tasks: Sequence[str] | None = None) -> EachInference:
    r"""Infer the task of every input by itself: the negative entropy of the outputs under each task's own mask.

    .. math:: e_{ni} = \sum_c p_{nic} \log p_{nic}

    with p the softmax of the outputs for input n under task i: 0 where a task is sure, :math:`-\log C` where it knows
    nothing of C outputs. One forward pass per task. The mean over a batch is the evidence of ``lowest_entropy``.

    Args:
        net: A network with finished tasks. Nothing of it changes.
        inputs: Inputs ``[n, …]``, each of any task, n at least 1.
        tasks: The tasks to choose from; None takes all finished ones.

    Returns:
        Evidence, margin and task of each input.

    Raises:
        UsageError: As :func:`infer_task`.
        MeasurementError: If the evidence is not finite.

    Example:
        >>> net = SupermaskNetwork(torch.nn.Sequential(torch.nn.Linear(4, 3)))
        >>> for task in ("a", "b"):
        ...     net.add_task(task)
        ...     net.finish(task)
        >>> found = infer_each(net, torch.ones(5, 4))
        >>> found.evidence.shape, found.chosen(least=0.1)
        (torch.Size([5, 2]), [None, None, None, None, None])
    """
    names = _checked(net, inputs, tasks)
    evidence = []
    with evaluating(net), torch.no_grad():
        for task in names:
            with net.on(task):
                evidence.append(-_entropies(net(inputs)))
    found = torch.stack(evidence, dim=1)
    if not found.isfinite().all():
        raise MeasurementError("the evidence for a task is not finite: are all inputs and weights finite?")
    return EachInference(names, found)


def predict(
    net: SupermaskNetwork, inputs: Tensor, task: str | None = None, *, method: Method = "one_shot"
) -> Prediction:
    """Predict, with the task known or inferred. Nothing of the network changes.

    Args:
        net: A network with finished tasks.
        inputs: Inputs ``[n, …]`` of one task.
        task: The task; None infers it from the inputs.
        method: How it is inferred.

    Returns:
        The outputs under the task's mask and its own statistics.

    Raises:
        UsageError: If the task is not one of the network, or cannot be inferred.
        MeasurementError: If the task is to be inferred and the evidence is not finite.
    """
    inference = infer_task(net, inputs, method) if task is None else None
    name = inference.task if inference is not None else task
    if name is None or name not in net.tasks:
        raise UsageError(f"the network has no task {name!r}; it has {', '.join(net.tasks) or 'none'}")
    with evaluating(net), net.on(name):
        return Prediction(name, net(inputs), inference)


def _checked(net: SupermaskNetwork, inputs: Tensor, tasks: Sequence[str] | None) -> tuple[str, ...]:
    """Check what a task is inferred from, and list the tasks to choose from."""
    check_kind("net", net, SupermaskNetwork, "make one with SupermaskNetwork(model)")
    check_kind("inputs", inputs, Tensor, "pass the inputs of one batch, without labels")
    if not len(inputs):
        raise UsageError("a task is inferred from at least one input, got none")
    names = tuple(task for task in net.tasks if net.is_finished(task)) if tasks is None else tuple(tasks)
    unknown = [task for task in names if task not in net.tasks or not net.is_finished(task)]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no finished task of the network; it has {', '.join(net.tasks) or 'none'}")
    if not names:
        raise UsageError("the network has no finished task to choose from; finish one first")
    return names


def _one_shot(net: SupermaskNetwork, inputs: Tensor, names: Sequence[str]) -> tuple[str, dict[str, float]]:
    return _best(_entropy_gradient(net, inputs, names))


def _binary(net: SupermaskNetwork, inputs: Tensor, names: Sequence[str]) -> tuple[str, dict[str, float]]:
    evidence = dict.fromkeys(names, math.nan)
    alive = list(names)
    while len(alive) > 1:
        found = _entropy_gradient(net, inputs, alive)
        _best(found)
        evidence |= found
        ranked = sorted(alive, key=lambda task: -found[task])  # stable: of equals the earlier stays
        kept = set(ranked[: (len(alive) + 1) // 2])
        alive = [task for task in alive if task in kept]
    return alive[0], evidence


def _lowest_entropy(net: SupermaskNetwork, inputs: Tensor, names: Sequence[str]) -> tuple[str, dict[str, float]]:
    evidence = {}
    for task in names:
        with torch.no_grad(), net.on(task):
            evidence[task] = -float(_mean_entropy(net(inputs)))
    return _best(evidence)


def _nearest_statistics(net: SupermaskNetwork, inputs: Tensor, names: Sequence[str]) -> tuple[str, dict[str, float]]:
    if not net.norms:
        raise UsageError("nearest_statistics needs batch norm, and the network has none; take another method")
    return _best({task: -statistics_distance(net.probe(task, [inputs]), net.statistics(task)) for task in names})


def statistics_distance(found: Mapping[str, Statistics], stored: Mapping[str, Statistics]) -> float:
    r"""Average the squared 2-Wasserstein distance of two Gaussians, in stored variances, over units and then layers.

    .. math:: \frac1L \sum_l \frac1{U_l} \sum_u \frac{(\mu'_u - \mu_u)^2 + (\sigma'_u - \sigma_u)^2}{\sigma_u^2}

    Returns:
        At least 0.
    """
    distances = []
    for layer, own in stored.items():
        variance = own.variance.double() + SMALLEST_VARIANCE
        means = (found[layer].mean.double() - own.mean.double()) ** 2
        spreads = (found[layer].variance.double().sqrt() - own.variance.double().sqrt()) ** 2
        distances.append(float(((means + spreads) / variance).mean()))
    return sum(distances) / len(distances)


_BY_METHOD: Mapping[Method, Callable[[SupermaskNetwork, Tensor, Sequence[str]], tuple[str, dict[str, float]]]] = {
    "one_shot": _one_shot,
    "binary": _binary,
    "lowest_entropy": _lowest_entropy,
    "nearest_statistics": _nearest_statistics,
}


def _entropy_gradient(net: SupermaskNetwork, inputs: Tensor, names: Sequence[str]) -> dict[str, float]:
    kind = inputs.dtype if inputs.dtype == torch.float64 else torch.float32
    shares = {
        task: torch.tensor(1 / len(names), dtype=kind, device=inputs.device, requires_grad=True) for task in names
    }
    with torch.enable_grad(), net.superposed(shares, mixture_counts=MIXTURE_COUNTS):
        gradients = torch.autograd.grad(_mean_entropy(net(inputs)), list(shares.values()))
    return {task: -float(gradient) for task, gradient in zip(names, gradients, strict=True)}


def _mean_entropy(logits: Tensor) -> Tensor:
    return _entropies(logits).mean()


def _entropies(logits: Tensor) -> Tensor:
    """Entropy of the outputs for every input, in nats."""
    logs = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=1)
    return -(logs.exp() * logs).sum(dim=1)


def _best(evidence: dict[str, float]) -> tuple[str, dict[str, float]]:
    if not all(map(math.isfinite, evidence.values())):
        raise MeasurementError(f"the evidence for a task is not finite: {evidence}; are all inputs and weights finite?")
    return max(evidence, key=lambda task: evidence[task]), evidence  # of equals the first
