r"""An estimate: a number with what it becomes on other samples, over folds of the examples or over training seeds.

Linear combinations work replicate by replicate, so the noise that two numbers have in common cancels in their
difference. Over K folds the replicates leave one fold out each, and their spread is the delete-one-fold jackknife
(Quenouille 1949, Tukey 1958); over training seeds they are the values of the seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from commonweight.base.errors import UsageError
from commonweight.base.text import DASH, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Over = Literal["folds", "seeds"]

FEWEST: Mapping[Over, int] = MappingProxyType({"folds": 3, "seeds": 2})
"""Fewer replicates than this give no interval."""

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    r"""A value and its replicates, from which the interval follows.

    Standard error, with :math:`\theta_k` the replicates and :math:`\bar\theta` their mean:

    .. math::
        \text{folds: } s^2 = \frac{K-1}{K} \sum_k (\theta_k - \bar\theta)^2 \qquad
        \text{seeds: } s^2 = \frac{1}{S (S-1)} \sum_s (\theta_s - \bar\theta)^2

    The interval is ``value ± t s`` with the quantile of Student's t of ``degrees`` degrees of freedom.

    Example:
        >>> shared = Estimate.over_seeds([0.80, 0.90, 0.85])
        >>> unshared = Estimate.over_seeds([0.70, 0.80, 0.74])
        >>> print(shared)
        0.8500 [0.7258, 0.9742] (95 %, 3 seeds)
        >>> print(shared - unshared)
        0.1033 [0.0890, 0.1177] (95 %, 3 seeds)
    """

    value: float
    """From all examples, or the mean over seeds; nan is undefined."""

    replicates: tuple[float, ...]
    """Over folds the value without each fold; over seeds that of each seed, or of what is no mean over seeds the
    pseudo-values of the jackknife."""

    over: Over
    """What the replicates differ in: the examples (``folds``), or the training (``seeds``)."""

    def __post_init__(self) -> None:
        if self.over not in {"folds", "seeds"}:
            raise UsageError(f"an estimate is over 'folds' or 'seeds', got {self.over!r}")

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> Estimate:
        """Estimate a mean over training seeds.

        Args:
            values: One per seed; nan where it is undefined.

        Returns:
            The mean, nan if there is none or one is undefined.
        """
        found = tuple(float(value) for value in values)
        return cls(math.fsum(found) / len(found) if found else math.nan, found, "seeds")

    @property
    def count(self) -> int:
        """How many replicates there are."""
        return len(self.replicates)

    @property
    def degrees(self) -> int:
        """Degrees of freedom: one less than there are replicates, at least 0."""
        return max(0, self.count - 1)

    @property
    def missing(self) -> str | None:
        """Why there is no interval; None where there is one."""
        if math.isnan(self.value):
            return "the value is undefined"
        if self.count < FEWEST[self.over]:
            return f"an interval needs at least {FEWEST[self.over]} {self.over}, and there are {self.count}"
        if not all(map(math.isfinite, self.replicates)):
            return "undefined in one of the seeds" if self.over == "seeds" else "undefined without one of the folds"
        return None

    @property
    def standard_error(self) -> float:
        """Standard error of the value; nan where there is no interval."""
        if self.missing:
            return math.nan
        mean = math.fsum(self.replicates) / self.count
        squares = math.fsum((replicate - mean) ** 2 for replicate in self.replicates)
        if self.over == "folds":
            return math.sqrt(squares * self.degrees / self.count)
        return math.sqrt(squares / (self.count * self.degrees))

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; nan where there is none."""
        return self.value - self.half_width()

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval; nan where there is none."""
        return self.value + self.half_width()

    def half_width(self, level: float = LEVEL) -> float:
        """Give half the width of the interval.

        Args:
            level: Its nominal coverage, between 0 and 1.

        Returns:
            ``t s``; nan where there is no interval.

        Raises:
            UsageError: If the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise UsageError(f"level must be between 0 and 1, such as 0.95, got {level!r}")
        if self.missing:
            return math.nan
        from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

        return float(stdtrit(self.degrees, (1 + level) / 2)) * self.standard_error

    def short(self) -> str:
        """Write the value with half its interval, for a table.

        Returns:
            ``0.8000 ± 0.0100``; of two seeds the values of both; without an interval the value alone; undefined is a
            dash.

        Example:
            >>> Estimate.over_seeds([0.80, 0.90, 0.85]).short(), Estimate.over_seeds([0.8]).short()
            ('0.8500 ± 0.1242', '0.8000')
            >>> Estimate.over_seeds([0.8, 0.9]).short()
            '0.8500 (0.8000, 0.9000)'
        """
        half = self.half_width()
        if math.isnan(half):
            return number(self.value)
        return f"{number(self.value)} ({self.listed()})" if self.is_pair else f"{number(self.value)} ± {half:.4f}"

    def brief(self) -> str:
        """Write it with three decimals, for a narrow column.

        Returns:
            The value with half its interval, of two seeds the values of both; undefined is a dash.

        Example:
            >>> Estimate.over_seeds([0.80, 0.90, 0.85]).brief(), Estimate.over_seeds([0.8, 0.9]).brief()
            ('0.850 ± 0.124', '0.800, 0.900')
        """
        if self.is_pair:
            return self.listed(3)
        half = self.half_width()
        return number(self.value, 3) + ("" if math.isnan(half) else f" ± {half:.3f}")

    @property
    def is_pair(self) -> bool:
        """Whether it is of two seeds: their values say more than an interval with one degree of freedom."""
        return self.over == "seeds" and self.count == 2

    def listed(self, decimals: int = 4) -> str:
        """Write the value of every seed."""
        return ", ".join(number(each, decimals) for each in self.replicates)

    def __add__(self, other: Estimate | float) -> Estimate:
        return self._with(other, lambda x, y: x + y)

    def __sub__(self, other: Estimate | float) -> Estimate:
        return self._with(other, lambda x, y: x - y)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, tuple(each * factor for each in self.replicates), self.over)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Estimate:
        return self * -1.0

    def __str__(self) -> str:
        if self.missing:
            return f"{number(self.value)} (no interval: {self.missing})"
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}] (95 %, {self.count} {self.over})"

    def _with(self, other: Estimate | float, combine: Callable[[float, float], float]) -> Estimate:
        if not isinstance(other, Estimate):
            return Estimate(
                combine(self.value, other), tuple(combine(each, other) for each in self.replicates), self.over
            )
        if (self.over, self.count) != (other.over, other.count):
            raise UsageError(
                f"estimates over {self.count} {self.over} and over {other.count} {other.over} have no replicates in "
                f"common: combine estimates over the same {self.over}"
            )
        pairs = zip(self.replicates, other.replicates, strict=True)
        return Estimate(combine(self.value, other.value), tuple(combine(x, y) for x, y in pairs), self.over)


def signed(value: Estimate) -> str:
    """Write a difference with its interval."""
    if math.isnan(value.value):
        return DASH
    half = "" if math.isnan(value.half_width()) else f" ± {value.half_width():.4f}"
    if value.is_pair:
        half = f" ({', '.join(f'{each:+.4f}' for each in value.replicates)})"
    return f"{value.value:+.4f}{half}"
