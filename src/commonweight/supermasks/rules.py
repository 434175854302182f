"""Mask rules: which weights a task keeps, given its scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_WORTH_SAMPLING = 5_000
_SAMPLE_STEP = 97  # a prime, so that a sample does not follow the columns of a weight


@dataclass(frozen=True)
class Threshold:
    """Keep every weight whose score is at least 0: ``m = 1[s >= 0]``.

    Source: Wortsman et al. (2020), https://arxiv.org/abs/2006.14769, in the form its MNIST experiments use. A score of
    exactly 0 is kept.

    Example:
        >>> Threshold().mask(torch.tensor([-1.0, 0.0, 2.0])).tolist()
        [False, True, True]
    """

    def mask(self, scores: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Choose the weights to keep; nan is not kept. ``out`` is as in :meth:`TopK.mask`."""
        return torch.ge(scores, 0, out=out)

    def check(self, name: str, entries: int) -> None:
        """Accept every weight: how many entries are kept is the training's choice."""

    def spec(self) -> dict[str, Any]:
        """Describe the rule in plain JSON values."""
        return {"rule": "threshold"}


@dataclass(frozen=True)
class TopK:
    """Keep exactly ``round(density * n)`` of a weight's n entries: those that rank highest.

    Entries of equal rank are taken in row-major order, so the count is exact and does not depend on the memory format.

    Source: edge-popup, Ramanujan et al. (2020), https://arxiv.org/abs/1911.13299, which ranks by ``|s|``.

    Args:
        density: Fraction of each weight that is kept, over 0 and at most 1. Half an entry rounds to the even count.
        by: Rank by the score, or by its magnitude.

    Raises:
        UsageError: If the density or the ranking is none of these.

    Example:
        >>> scores = torch.tensor([-3.0, 1.0, 0.0, 2.0])
        >>> TopK(0.5).mask(scores).tolist(), TopK(0.5, by="magnitude").mask(scores).tolist()
        ([False, True, False, True], [True, False, False, True])
    """

    density: float
    by: Literal["score", "magnitude"] = "score"

    def __post_init__(self) -> None:
        if isinstance(self.density, bool) or not isinstance(self.density, (int, float)) or not 0 < self.density <= 1:
            raise UsageError(f"density must be a fraction kept, over 0 and at most 1, got {self.density!r}")
        if self.by not in {"score", "magnitude"}:
            raise UsageError(f'by must be "score" or "magnitude", got {self.by!r}')

    def mask(self, scores: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Choose the weights to keep.

        Args:
            scores: Any shape and memory format.
            out: Where to write the mask, of the shape of the scores and any type and memory format: 1 is kept, 0 is
                not. None makes a boolean tensor.

        Returns:
            Boolean, or ``out``; exactly ``round(density * n)`` entries are on.

        Raises:
            MeasurementError: If a score is nan, so that there is no ranking.
        """
        ranks = scores.detach().reshape(-1)
        if self.by == "magnitude":
            ranks = ranks.abs()
        keep = round(self.density * len(ranks))
        if keep == 0:
            return torch.zeros_like(scores, dtype=torch.bool) if out is None else out.zero_()
        least, reached = (_least_on_cpu if ranks.device.type == "cpu" else _least)(ranks, keep)
        if reached == keep:
            return torch.ge(ranks.view(scores.shape), least, out=out)
        chosen = ranks >= least
        chosen[(ranks == least).nonzero().view(-1)[keep - reached :]] = False
        return chosen.view(scores.shape) if out is None else out.copy_(chosen.view(scores.shape))

    def check(self, name: str, entries: int) -> None:
        """Refuse a weight of which nothing would be kept."""
        if round(self.density * entries) == 0:
            raise UsageError(
                f"density {self.density} keeps none of the {entries} entries of {name}; raise it, or leave this weight "
                "out with exclude"
            )

    def spec(self) -> dict[str, Any]:
        """Describe the rule in plain JSON values."""
        return {"rule": "topk", "density": self.density, "by": self.by}


MaskRule = Threshold | TopK
"""From scores to a mask. The gradient passes straight through: the mask's derivative by its score is taken as 1."""


def rule_of(spec: Mapping[str, Any]) -> MaskRule:
    """Make a rule from its description."""
    match spec:
        case {"rule": "threshold"}:
            return Threshold()
        case {"rule": "topk", "density": density, "by": by}:
            return TopK(density, by)
    raise IntegrityError(f'expected a mask rule "threshold" or "topk", the record says {spec!r}: it was damaged')


def _least_on_cpu(ranks: Tensor, keep: int) -> tuple[float, int]:
    """Find the least rank that is kept, and how many ranks reach it."""
    values = ranks.float().numpy() if ranks.dtype in {torch.bfloat16, torch.float16} else ranks.numpy()
    _check_ranked(float(values.max()))
    # A regular sample says between which values the entry lies, and only those are partitioned (the idea of Floyd and
    # Rivest 1975). A partition of everything takes six times as long, and is left for where the sample misleads.
    if values.size >= _WORTH_SAMPLING:
        sample = values[::_SAMPLE_STEP]
        share = 1 - keep / values.size
        margin = 4 * math.sqrt(sample.size * share * (1 - share)) + 2
        ends = [max(0, int(share * sample.size - margin)), min(sample.size - 1, int(share * sample.size + margin))]
        low, high = np.partition(sample, ends)[ends]
        over = values > high
        between = values[np.flatnonzero((values >= low) ^ over)]
        above = int(np.count_nonzero(over))
        if 0 < keep - above <= between.size:
            least = _kept_last(between, keep - above)
            return float(least), above + int(np.count_nonzero(between >= least))
    least = _kept_last(values, keep)
    return float(least), int(np.count_nonzero(values >= least))


def _kept_last(values: np.ndarray[Any, Any], keep: int) -> Any:
    return np.partition(values, values.size - keep)[values.size - keep]


def _least(ranks: Tensor, keep: int) -> tuple[float, int]:
    """Do the same on any device."""
    least = float(ranks.topk(keep, sorted=False).values.min())
    _check_ranked(least)
    return least, int((ranks >= least).sum())


def _check_ranked(extreme: float) -> None:
    if math.isnan(extreme):
        raise MeasurementError("scores hold nan: expected numbers that can be ranked; lower the learning rate")
