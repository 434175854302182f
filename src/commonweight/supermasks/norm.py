"""Batch norm with statistics of its own for every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from commonweight.base.errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn.modules.batchnorm import _BatchNorm

    from commonweight.supermasks.selection import Mixture, Selection

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a batch norm knows of its inputs."""

    mean: Tensor
    """Per unit; shape ``[units]``."""

    variance: Tensor
    """Per unit, with n - 1 in the denominator as PyTorch stores it; shape ``[units]``, at least 0."""

    batches: int
    """How many batches went into it."""

    @classmethod
    def of(cls, held: Mapping[str, Tensor]) -> Statistics:
        """Read the buffers of a batch norm."""
        return cls(held["running_mean"].clone(), held["running_var"].clone(), int(held["num_batches_tracked"]))

    def put(self, held: Mapping[str, Tensor]) -> None:
        """Write them into the buffers of a batch norm."""
        held["running_mean"].copy_(self.mean)
        held["running_var"].copy_(self.variance)
        held["num_batches_tracked"].fill_(self.batches)


class TaskBatchNorm(nn.Module):
    r"""A batch norm that normalises with the selected task's statistics.

    It holds the original module, of any subclass of ``BatchNorm1d``, ``2d``, ``3d`` or ``SyncBatchNorm``, and calls it
    with the task's tensors in place of its own, which stay what a new task starts from. Statistics move only in
    training mode, and only those of the selected task while it is unfinished. A superposition uses the mixture's
    statistics: mean :math:`\mu = \sum_i a_i \mu_i` and variance :math:`\sum_i a_i (v_i + \mu_i^2) - \mu^2`.
    """

    def __init__(self, norm: _BatchNorm, selection: Selection, own: tuple[str, ...]) -> None:
        super().__init__()
        self.norm = norm
        self.own = own
        self._selection = selection

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise."""
        selection = self._selection
        if selection.unmasked:
            return self.norm(inputs)  # type: ignore[no-any-return]
        if selection.mixture is not None:
            return self._with_mixture(inputs, selection.mixture)
        task = selection.current()
        tensors = self.tensors(task)
        if task in selection.finished and self.training:  # the original moves what it is given
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        return self._call(inputs, tensors)

    def add(self, task: int) -> None:
        """Add a task, which starts with what the original module held."""
        for name in STATISTICS:
            self.register_buffer(f"{name}{task}", self.norm.get_buffer(name).clone())
        for name in self.own:
            start = self.norm.get_parameter(name).detach().clone()
            self.register_parameter(f"{name}{task}", nn.Parameter(start, requires_grad=False))

    def trained(self, task: int) -> list[nn.Parameter]:
        """List a task's own weight and bias."""
        return [self.get_parameter(f"{name}{task}") for name in self.own]

    def settle(self, task: int) -> None:
        """Keep a task's own weight and bias in tensors that nothing outside holds: no optimiser can move them."""
        for name in self.own:
            kept = self.get_parameter(f"{name}{task}").detach().clone()
            self.register_parameter(f"{name}{task}", nn.Parameter(kept, requires_grad=False))

    def tensors(self, task: int) -> dict[str, Tensor]:
        """Give everything a task has of its own."""
        tensors: dict[str, Tensor] = {name: self.get_buffer(f"{name}{task}") for name in STATISTICS}
        return tensors | {name: self.get_parameter(f"{name}{task}") for name in self.own}

    def statistics(self, task: int) -> Statistics:
        """Give a task's statistics."""
        return Statistics.of(self.tensors(task))

    def _with_mixture(self, inputs: Tensor, mixture: Mixture) -> Tensor:
        held = [self.tensors(task) for task in mixture.tasks]
        weights = mixture.weights[:, None]
        means, variances, *affine = (
            torch.stack([tensors[name] for tensors in held]).to(weights.dtype)
            for name in ("running_mean", "running_var", *self.own)
        )
        mean = (weights * means).sum(0)
        # The formula above, rearranged so that one task alone gives its own variance exactly.
        spread = (weights * (variances + (means - mean).square())).sum(0)
        variance = spread + mean.square() * _missing(mixture.weights)
        kind = torch.promote_types(inputs.dtype, torch.float32)
        if not bool((variance + self.norm.eps > 0).all()):
            raise MeasurementError(
                f"the mixture has a variance below 0, or nan, at weights of sum {float(weights.sum()):g}: expected "
                "finite statistics, and weights of at least 0 that sum to 1; divide them by their sum"
            )
        if mixture.counts is not None:
            mean, variance = _blended(inputs.to(kind), mean, variance, mixture.counts)
        tensors = {
            "running_mean": mean.detach().to(held[0]["running_mean"].dtype),
            "running_var": variance.detach().to(held[0]["running_var"].dtype),
            "num_batches_tracked": held[0]["num_batches_tracked"].clone(),
        }
        for name, values in zip(self.own, affine, strict=True):
            tensors[name] = (weights * values).sum(0).to(held[0][name].dtype)
        # Running statistics take no gradient in PyTorch. Moving the inputs the other way has the same effect, so a term
        # of value 0 carries the gradient.
        shape = [1, -1, *[1] * (inputs.dim() - 2)]
        scale = ((variance.detach() + self.norm.eps) / (variance + self.norm.eps)).sqrt()
        moved = (inputs.detach().to(kind) - mean.view(shape)) * scale.view(shape)
        return self._call(inputs + (moved - moved.detach()).to(inputs.dtype), tensors)

    def _call(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Call the original with other tensors, as ``functional_call`` does, in a third of its time."""
        norm = self.norm
        buffers, parameters = dict(norm._buffers), dict(norm._parameters)
        for name, tensor in tensors.items():
            (norm._buffers if name in STATISTICS else norm._parameters)[name] = tensor  # type: ignore[assignment]
        try:
            return norm(inputs)  # type: ignore[no-any-return]
        finally:
            norm._buffers.update(buffers)
            norm._parameters.update(parameters)

    def extra_repr(self) -> str:
        """Describe the module."""
        return f"per task: {', '.join(('statistics', *self.own))}"


def _missing(weights: Tensor) -> Tensor:
    """What the weights lack to a sum of 1, with its gradient; rounding is no lack."""
    missing = 1 - weights.sum()
    rounding = 4 * len(weights) * torch.finfo(weights.dtype).eps
    return missing - missing.detach() if abs(float(missing.detach())) <= rounding else missing


def _blended(inputs: Tensor, mean: Tensor, variance: Tensor, counts: float) -> tuple[Tensor, Tensor]:
    values = inputs.transpose(0, 1).flatten(1)
    n = values.shape[1]
    own = values.mean(1)
    squares = (values - own[:, None]).square().sum(1)
    return (n * own + counts * mean) / (n + counts), (squares + counts * variance) / (n - 1 + counts)
