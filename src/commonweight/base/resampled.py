"""A number with what it becomes when rows are drawn again: the bootstrap, its replicates shared by several numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.estimate import LEVEL
from commonweight.base.text import DASH, number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Replicates = NDArray[np.float64]

CLEAR = 4
"""A gain is divided by only where it is at least as many of its standard errors."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A value, and the value on every bootstrap sample of the rows.

    Numbers of the same samples are paired: what they have in common cancels in their difference, and a ratio is
    resampled whole. Its interval holds the middle 95 % of the replicates (percentile bootstrap, Efron 1979).

    Example:
        >>> cost = Resampled(0.2, np.linspace(0.1, 0.3, 101))
        >>> round(cost.low, 3), round(cost.high, 3), cost.p_above_0() < 0.05
        (0.105, 0.295, True)
    """

    value: float
    replicates: Replicates
    reason: str = ""
    """Why it is undefined; empty where it is not."""

    @classmethod
    def undefined(cls, reason: str) -> Resampled:
        """Make one that has no value.

        Args:
            reason: Why.

        Returns:
            It, all nan.
        """
        return cls(math.nan, np.empty(0), reason)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; nan where it is undefined."""
        return math.nan if self.reason else float(np.quantile(self.replicates, (1 - LEVEL) / 2))

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval; nan where it is undefined."""
        return math.nan if self.reason else float(np.quantile(self.replicates, (1 + LEVEL) / 2))

    @property
    def standard_error(self) -> float:
        """Standard deviation of the replicates; nan where it is undefined."""
        return math.nan if self.reason else float(self.replicates.std(ddof=1))

    def p_above_0(self) -> float:
        """Test whether it is above 0.

        Returns:
            Two-sided p of the bootstrap, from ``2 / (replicates + 1)`` to 1; 1 where it is undefined.
        """
        if self.reason:
            return 1.0
        at_most_0 = int((self.replicates <= 0).sum())
        return min(1.0, 2 * (1 + at_most_0) / (len(self.replicates) + 1))

    def __sub__(self, other: Resampled) -> Resampled:
        reason = self.reason or other.reason
        if reason:
            return Resampled.undefined(reason)
        return Resampled(self.value - other.value, self.replicates - other.replicates)

    def below(self, bound: float) -> Resampled:
        """Tell how far it lies below a bound.

        Args:
            bound: The bound.

        Returns:
            ``bound − value``, above 0 where it lies below.
        """
        return self if self.reason else Resampled(bound - self.value, bound - self.replicates)

    def share_of(self, gain: Resampled) -> Resampled:
        """Divide by a gain.

        Args:
            gain: What it is a share of, resampled on the same rows.

        Returns:
            The ratio, not clipped; undefined unless the interval of the gain lies above 0 and the gain is at least 4 of
            its standard errors.
        """
        if reason := self.reason or gain.reason:
            return Resampled.undefined(reason)
        if not gain.low > 0:
            return Resampled.undefined("the gain of the model over its base is not above 0")
        if gain.value < CLEAR * gain.standard_error:
            return Resampled.undefined(f"the gain of the model over its base is below {CLEAR} of its standard errors")
        return Resampled(self.value / gain.value, self.replicates / gain.replicates)

    def short(self, decimals: int = 3) -> str:
        """Write it with its interval, for a table; undefined is a dash."""
        if self.reason:
            return DASH
        return f"{number(self.value, decimals)} [{number(self.low, decimals)}, {number(self.high, decimals)}]"

    def record(self) -> dict[str, float | str | None]:
        """Give it as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "undefined": self.reason or None}
