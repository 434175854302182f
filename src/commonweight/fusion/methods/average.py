"""The weighted average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.fusion.methods.method import Entries, Method, moved

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Average(Method):
    r"""Average weights.

    .. math:: \theta = \sum_i w_i \theta_i = \theta_0 + \sum_i w_i (\theta_i - \theta_0), \qquad \sum_i w_i = 1

    Source: Wortsman et al. (2022), "Model soups", https://arxiv.org/abs/2203.05482, where the weights are equal.
    Weights may have any sign.
    """

    name = "average"
    title = "weighted average"
    summary = "the weighted average"

    def tensor(self, entries: Entries) -> Tensor:
        """Fuse one tensor."""
        return moved(None, entries.models, entries.weights)
