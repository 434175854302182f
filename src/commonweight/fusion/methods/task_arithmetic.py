"""Task vectors added to a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.base.settings import setting
from commonweight.fusion.methods.method import Entries, Method, moved

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class TaskArithmetic(Method):
    r"""Add task vectors to a base.

    .. math:: \theta = \theta_b + \lambda \sum_i w_i (\theta_i - \theta_b)

    Source: Ilharco et al. (2023), https://arxiv.org/abs/2212.04089, where every w is 1 and λ (``scale``) is chosen on
    held-out data; a negative weight takes a task away.
    """

    name = "task_arithmetic"
    title = "task arithmetic (Ilharco et al. 2023)"
    summary = "task vectors added to --base"
    needs_base = True
    sums_to_one = False

    scale: float = setting(1.0, "Multiplies the sum of task vectors", metavar="X")

    def tensor(self, entries: Entries) -> Tensor:
        """Fuse one tensor."""
        return moved(entries.base, entries.models, [weight * self.scale for weight in entries.weights])
