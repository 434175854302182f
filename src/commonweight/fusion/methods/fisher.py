"""The Fisher-weighted average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from commonweight.base.settings import setting
from commonweight.fusion.methods.method import Entries, Method

if TYPE_CHECKING:
    from torch import Tensor

DEAD = "at_floor_in_all_fishers"


@dataclass
class FisherAverage(Method):
    r"""Average each weight by how much it matters to each model.

    .. math:: \theta = \frac{\sum_i w_i \max(\hat F_i, \varepsilon)\, \theta_i}{\sum_i w_i \max(\hat F_i, \varepsilon)}

    Where no Fisher exceeds the floor ε (dead parameters) this is the plain weighted average; ``counts[DEAD]`` says how
    often that was.

    Source: Matena & Raffel (2022), https://arxiv.org/abs/2111.09832, and the floor of their code with
    ``favor_target_model=False``: its default floors the first model only, so that dead weights are the first model's,
    and the order of the models matters; here it never does.
    """

    name = "fisher"
    title = "Fisher-weighted average (Matena & Raffel 2022)"
    summary = "each weight averaged by its Fisher"
    needs_fishers = True
    takes_negative = False

    floor: float = setting(1e-6, "Smallest value that an entry of a Fisher counts for", above=0, metavar="X")
    normalize: Literal["norm", "trace", "none"] = setting(
        "norm", "Divide each Fisher by its root mean square, its mean, or nothing"
    )

    @property
    def normalization(self) -> str:
        """What each Fisher is divided by before the formula sees it."""
        return self.normalize

    def tensor(self, entries: Entries) -> Tensor:
        """Fuse one tensor."""
        models, fishers = iter(entries.models), iter(entries.fishers)
        start = sum_of_steps = whole = dead = None
        for weight in entries.weights:
            if weight == 0:
                next(models)
                next(fishers)
                continue
            fisher = next(fishers)
            is_dead = fisher <= self.floor
            share = fisher.double().clamp_min(self.floor).mul_(weight)
            if start is None or whole is None or dead is None:
                start, whole, dead = next(models).double(), share, is_dead
            else:
                step = (next(models).double() - start).mul_(share)
                sum_of_steps = step if sum_of_steps is None else sum_of_steps.add_(step)
                whole.add_(share)
                dead &= is_dead
        if start is None or whole is None or dead is None:
            raise ValueError("expected weights with the sum 1, got none that is not 0")
        self.counts[DEAD] += int(dead.sum())
        return start if sum_of_steps is None else sum_of_steps.div_(whole).add_(start)
