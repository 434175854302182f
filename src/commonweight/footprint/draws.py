"""Label distributions: expectations over them, and draws keyed by seed and source row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from commonweight.errors import UsageError
from commonweight.footprint.folds import keyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.footprint.batch import Batch

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
            f"label_rule='model' takes one backward pass per class, and there are {classes} "
            f"(at most {LARGEST_EXACT}): use label_rule='sampled'"
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
