"""What a network scores, row by row, by forward passes; and the means of such scores with intervals over rows."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from commonweight.base.resampled import Resampled
from commonweight.diagonal_fisher.batch import BatchReader
from commonweight.diagonal_fisher.likelihood import per_example
from commonweight.diagonal_fisher.losses import choose_likelihood
from commonweight.supermasks.norm import STATISTICS as BUFFERS
from commonweight.supermasks.norm import Statistics as NormStatistics
from commonweight.supermasks.passes import evaluating, settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    Array = NDArray[np.float64]

Metric = Literal["accuracy", "log-likelihood"]
METRICS: Mapping[Metric, str] = MappingProxyType({"accuracy": "right", "log-likelihood": "log_likelihood"})
Statistics = Literal["stored", "re-estimated"]
"""Of batch norms: those that the network came with, or those of the choosing rows after an intervention."""
STATISTICS: tuple[Statistics, ...] = ("stored", "re-estimated")


@dataclass(frozen=True, eq=False)
class RowScores:
    """How well every row is predicted, in the order of the source rows."""

    source_rows: tuple[int, ...]
    right: Array
    """``[n]``, 1 where the likeliest label is the given one, else 0; nan of models without classes."""

    log_likelihood: Array
    """``[n]``, of the given label, in nats, at most 0 for classes."""


@dataclass(frozen=True)
class ModelScore:
    """How well a model predicts a data set, on average."""

    model: str
    data: str
    rows: int
    accuracy: float
    """Share of the rows whose likeliest label is the given one; nan of models without classes."""

    log_likelihood: float
    """Mean over the rows, of the given label, in nats."""


def row_scores(model: nn.Module, batches: Iterable[Any], loss: Any = None) -> RowScores:
    """Score a model on every row.

    Args:
        model: The model; it is put into eval mode and back.
        batches: What a loader yields, as for :func:`commonweight.fisher`.
        loss: The likelihood, as for :func:`commonweight.fisher`; None infers it.

    Returns:
        The scores; neither the order of the rows nor their batches matter.

    Raises:
        MeasurementError: If a loss is not finite.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> found = row_scores(model, [(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))])
        >>> found.source_rows, found.right.shape, bool((found.log_likelihood < 0).all())
        ((0, 1, 2), (3,), True)
    """
    reader = BatchReader()
    rows: list[int] = []
    right: list[torch.Tensor] = []
    likelihoods: list[torch.Tensor] = []
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            for raw in batches:
                batch = reader.read(raw)
                likelihood = choose_likelihood(loss, model, batch)
                outputs = batch.call(model, with_labels=likelihood.passes_labels, withhold=likelihood.reads_batch)
                hits = likelihood.right(outputs, batch)
                rows += batch.source_rows
                likelihoods.append(-per_example(likelihood.nll(outputs, batch), batch).double().cpu())
                right.append(torch.full((batch.size,), torch.nan) if hits is None else hits[0].double().cpu())
    finally:
        for module, mode in modes.items():
            module.training = mode
    order = np.argsort(rows, kind="stable")
    return RowScores(
        tuple(rows[place] for place in order),
        torch.cat(right).double().numpy()[order],
        torch.cat(likelihoods).numpy()[order],
    )


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Find the batch norms of a network that keep running statistics."""
    every = ((name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    return {name: module for name, module in every if module.running_mean is not None}


@contextlib.contextmanager
def reestimated(model: nn.Module, batches: Iterable[Any]) -> Iterator[nn.Module]:
    """Give every batch norm of a network the statistics of some rows for a while.

    An intervention moves what batch norms receive, and running statistics are buffers, which it leaves alone. Here each
    batch norm in turn gets mean and variance of what it receives, exactly over all rows, as in
    :meth:`commonweight.SupermaskNetwork.reestimate`: one pass over the rows each.

    Args:
        model: The network, after the intervention.
        batches: What a loader yields, as for :func:`row_scores`; can be gone through repeatedly.

    Yields:
        The network; on leaving, also by an error, every statistic is bit for bit what it was.

    Raises:
        UsageError: If the batches are none or a mere iterator.
        MeasurementError: If a batch norm gets fewer than two values per unit, or none that are finite.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
        >>> rows = [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))]
        >>> with reestimated(model, rows):
        ...     model[0].running_mean.tolist()
        [2.0]
        >>> model[0].running_mean.tolist()
        [0.0]
    """
    norms, reader = batch_norms(model), BatchReader()
    held = {name: {buffer: norm.get_buffer(buffer) for buffer in BUFFERS} for name, norm in norms.items()}
    former = {name: NormStatistics.of(each) for name, each in held.items()}
    try:
        with evaluating(model):
            settle(norms, held, lambda raw: reader.read(raw).call(model), batches)
        yield model
    finally:
        for name, statistics in former.items():
            statistics.put(held[name])


class RowResampling:
    """Bootstrap samples of rows, the same for every number that is made of them.

    Args:
        units: Per row the number of what it was made from: rows of one unit are drawn together.
        resamples: How many samples.
        seed: Names the samples.

    Example:
        >>> resampling = RowResampling(range(100), 200, seed=0)
        >>> found = resampling.mean(np.arange(100.0))
        >>> found.value, 40 < found.low < 49.5 < found.high < 60
        (49.5, True)
    """

    def __init__(self, units: Sequence[int], resamples: int, seed: int) -> None:
        _, of_row = np.unique(np.asarray(units), return_inverse=True)
        count = int(of_row.max()) + 1
        self._rng = np.random.default_rng(seed)
        drawn = np.stack([
            np.bincount(self._rng.integers(count, size=count), minlength=count) for _ in range(resamples)
        ])
        weights = drawn[:, of_row].astype(np.float64)
        self._weights = weights / weights.sum(1, keepdims=True)

    def mean(self, values: Array) -> Resampled:
        """Average a score over the rows.

        Args:
            values: ``[n]``, of one network; or ``[D, n]``, of each of D null sets.

        Returns:
            The mean; undefined where a value is. Of null sets the replicates are of one more such set: to the mean of
            the D on each sample of the rows they add ``t s √(1 + 1/D)``, with s the standard deviation over the D sets
            and t drawn from Student's t of D − 1 degrees. So a set that differs from its null sets by the luck of the
            draw alone is found to differ no more often than it should be.
        """
        if np.isnan(values).any():
            return Resampled.undefined("the model has no classes")
        if values.ndim == 1:
            return Resampled(float(values.mean()), self._weights @ values)
        draws = len(values)
        spread = values.mean(1).std(ddof=1) * np.sqrt(1 + 1 / draws)
        luck = self._rng.standard_t(draws - 1, size=len(self._weights)) * spread
        return Resampled(float(values.mean()), self._weights @ values.mean(0) + luck)


def sufficiency(graft: Resampled, base: Resampled, model: Resampled) -> Resampled:
    """Tell which share of a model's gain a graft reaches, ``(s(graft) − s(base)) / (s(model) − s(base))``.

    Args:
        graft: Score of the network with a set of weights on the initialisation.
        base: Score of the initialisation with the model's own head.
        model: Score of the model.

    Returns:
        The share, not clipped; undefined where the gain is not clear.
    """
    return (graft - base).share_of(model - base)


def necessity(reset: Resampled, base: Resampled, model: Resampled) -> Resampled:
    """Tell which share of a model's gain a reset costs, ``(s(model) − s(reset)) / (s(model) − s(base))``.

    Args:
        reset: Score of the model with a set of weights back at the initialisation.
        base: Score of the initialisation with the model's own head.
        model: Score of the model.

    Returns:
        The share, not clipped; undefined where the gain is not clear.
    """
    return (model - reset).share_of(model - base)
