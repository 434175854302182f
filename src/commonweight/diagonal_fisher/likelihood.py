"""Per-example log-likelihoods, and the three Fisher types as weighted backward passes.

The diagonal Fisher of one example is an expectation over labels of a squared gradient,
``E_y[(∂ log p(y|x)/∂w)²]``. A Fisher type says which labels: the given ones (``empirical``), the
model's own distribution, exactly (``exact``), or draws from it (``mc``). Each is a list of *passes*:
vectors ``[batch]`` whose per-example gradients, squared and summed over the passes, are the Fisher of the example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.footprints.folds import keyed

if TYPE_CHECKING:
    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.fisher_type import FisherType


LossFunction = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class CustomLoss:
    """A loss of the user's own, with what the Fisher types ``exact`` and ``mc`` need.

    Args:
        nll: ``(outputs, batch) -> [batch]``, the per-example negative log-likelihood of the given labels.
        log_prob: ``(outputs, batch) -> [batch, classes]``, normalised log-probabilities of every possible label.

    Example:
        >>> import torch.nn.functional as F
        >>> loss = CustomLoss(
        ...     nll=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"),
        ...     log_prob=lambda outputs, batch: outputs.log_softmax(-1),
        ... )
    """

    nll: LossFunction
    log_prob: LossFunction | None = None


class Right(NamedTuple):
    """Which examples of a batch have the label that the model finds likeliest."""

    rows: Tensor
    """Bits ``[batch]``."""

    classes: int
    """How many labels there are to choose from."""


class Likelihood(ABC):
    """How outputs and labels become per-example log-likelihoods."""

    name: str
    passes_labels = False
    """Whether the model is called with the labels (it needs them to make decoder inputs, or the user's loss may)."""

    reads_batch = False
    """Whether keys of a batch that the model does not take are for the loss."""

    @abstractmethod
    def nll(self, outputs: Any, batch: Batch) -> Tensor:
        """Negative log-likelihood of the given labels, ``[batch]``, in nats."""

    @abstractmethod
    def expectation(self, outputs: Any, batch: Batch) -> Iterator[Tensor]:
        """Passes whose squared gradients sum to the exact expectation over the model's own labels."""

    @abstractmethod
    def sampled_nll(self, outputs: Any, batch: Batch, seed: int, draw: int) -> Tensor:
        """Negative log-likelihood of labels drawn from the model, keyed by seed, source row and draw, ``[batch]``."""

    def right(self, outputs: Any, batch: Batch) -> Right | None:  # noqa: ARG002 - for those with classes
        """Say which examples have the label that the model finds likeliest; None where labels are no classes."""
        return None

    def doubt(self, outputs: Any, batch: Batch) -> str:  # noqa: ARG002 - some have one
        """Why outputs may not be what the likelihood takes them for; empty without a doubt."""
        return ""

    def fingerprint(self, outputs: Any, batch: Batch, rule: FisherType, seed: int) -> Tensor:
        """One number per example that changes whenever its outputs do, ``[batch]``."""
        return self.nll(outputs, batch) if rule == "empirical" else self.sampled_nll(outputs, batch, seed, 0)

    def passes(self, outputs: Any, batch: Batch, rule: FisherType, seed: int, samples: int) -> Iterator[Tensor]:
        """Give the passes of a Fisher type."""
        if rule == "empirical":
            yield self.nll(outputs, batch)
        elif rule == "exact":
            yield from self.expectation(outputs, batch)
        else:
            for draw in range(samples):
                yield self.sampled_nll(outputs, batch, seed, draw) / math.sqrt(samples)


def per_example(vector: Tensor, batch: Batch) -> Tensor:
    """Check that a loss is one finite number per example."""
    if not isinstance(vector, Tensor) or vector.shape != (batch.size,):
        got = list(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
        raise MeasurementError(
            f"expected one loss per example, shape [{batch.size}], got {got}: the outputs do not match the batch, "
            "or the loss is averaged (use reduction='none' and sum over everything but the batch)"
        )
    finite = vector.detach().isfinite()
    if not finite.all():
        row = batch.source_rows[int((~finite).nonzero()[0])]
        raise MeasurementError(
            f"the loss of example {row} is {float(vector.detach()[~finite][0])}: expected a finite number"
        )
    return vector


LARGEST_EXACT = 1000
"""Most classes for which the expectation over labels is taken exactly, one backward pass each."""


def picked(log_prob: Tensor, labels: Tensor) -> Tensor:
    """Pick the log-probability of one label per row: ``[..., C]`` and ``[...]`` to ``[...]``."""
    return log_prob.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def bernoulli(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the binary cross-entropies of independent labels: ``[batch, K]`` to ``[batch]``, in nats."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)


def check_exact(classes: int) -> None:
    """Refuse an exact expectation over more than ``LARGEST_EXACT`` labels."""
    if classes > LARGEST_EXACT:
        raise UsageError(
            f"the Fisher type exact takes one backward pass per class, and there are {classes} "
            f"(at most {LARGEST_EXACT}): use {{fisher_type}}",
            fisher_type="mc",
        )


def categorical_expectation(log_prob: Tensor) -> Iterator[Tensor]:
    """Give a pass per class, ``√p_c · -log p_c``, whose squared gradients sum to the expectation."""
    check_exact(log_prob.shape[-1])
    weight = (log_prob.detach() / 2).exp()
    for c in range(log_prob.shape[-1]):
        # A probability that underflows to 0 has weight 0; its log would turn 0 · inf into nan.
        yield weight[:, c] * -log_prob[:, c].clamp_min(torch.finfo(log_prob.dtype).min)


def categorical_draw(log_prob: Tensor, batch: Batch, seed: int, draw: int) -> Tensor:
    """Give the negative log-likelihood of one drawn class per example, ``[batch]``."""
    cumulative = log_prob.detach().double().exp().cumsum(-1)
    uniform = torch.cat([uniforms(1, seed, row, draw) for row in batch.source_rows]).to(log_prob.device)
    return -picked(log_prob, invert(cumulative, uniform))


def invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """Invert a cumulative distribution at uniform numbers: ``[n, C]`` and ``[n]`` to class numbers ``[n]``."""
    index = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1]).unsqueeze(-1), right=True)
    return index.squeeze(-1).clamp_max(cumulative.shape[-1] - 1)


def uniforms(count: int, seed: int, row: int, draw: int) -> Tensor:
    """Draw uniform numbers keyed by seed, source row and draw, ``[count]``, float64."""
    generator = torch.Generator().manual_seed(keyed(seed, row, draw))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def uniform_like(batch: Batch, like: Tensor, seed: int, draw: int) -> Tensor:
    """Draw uniform numbers for every output of every example, ``[batch, K]``, keyed in the same way."""
    rows = [uniforms(like.shape[-1], seed, row, draw) for row in batch.source_rows]
    return torch.stack(rows).to(like.device)
