"""The ceilings of a measurement that goes on until one is high enough, and what stopping there does to the last."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from commonweight.overlaps.layout import FEW_EXAMPLES

if TYPE_CHECKING:
    from commonweight.footprint.copies import RowCounts
    from commonweight.overlaps.estimate import Estimate

PASSED = (
    "Rows were added until the ceiling was reached in two steps in a row, so the last value is one that passed: by "
    "this selection it is too high on average, and its interval holds only given that the measurement stopped there. "
    "It is far too high where a few loud examples carry much of the trace and these rows hold too few of them."
)
NEVER_PASSED = (
    "The measurement would have stopped earlier had the ceiling been reached there in two steps in a row: by this "
    "selection the last value is, if anything, too low on average, and its interval holds only given that."
)


@dataclass(frozen=True)
class Point:
    """What one step came to."""

    examples: int
    effective: float
    """Effective examples, ``(Σ t)² / Σ t²``; nan for a zero Fisher."""

    ceiling: Estimate
    """Of all weights pooled, over folds."""

    rows: RowCounts | None = None
    """How many rows are distinct, and how many have copies in other folds; None where it was not measured."""

    def is_enough(self, target: float) -> bool:
        """Tell whether the ceiling is high enough here; to stop takes two such steps in a row.

        Args:
            target: The ceiling to be reached.

        Returns:
            Whether it is at least the target, with at least 20 effective examples; fewer decide nothing. Nor do folds
            that hold copies of each other's rows.
        """
        disjoint = self.rows is None or self.rows.are_disjoint
        return disjoint and self.ceiling.value >= target and self.effective >= FEW_EXAMPLES


@dataclass(frozen=True)
class Convergence:
    """The curve of a measurement that went on until its ceiling was high enough, or the data ended."""

    target: float
    points: tuple[Point, ...]
    available: int
    """Rows that could be taken."""

    in_all: int
    """Rows of the data set; more than could be taken where a number of examples was the limit."""

    @property
    def is_reached(self) -> bool:
        """Whether the target is reached in two steps in a row, with 20 effective examples and few copies in both.

        One step is not enough: a loud example in the next may make the same rows agree far less. The first of the two
        has at most two thirds of the rows of the second, so a last step of a few rows confirms nothing.
        """
        most = 2 * self.points[-1].examples / 3
        before = [point.examples <= most for point in self.points].count(True)
        return before > 0 and all(point.is_enough(self.target) for point in self.points[before - 1 :])

    @property
    def falls(self) -> tuple[tuple[Point, Point], ...]:
        """Steps in a row of which the second has fewer effective examples than the first, though more rows."""
        return tuple((one, two) for one, two in pairwise(self.points) if two.effective < one.effective)

    @property
    def undefined(self) -> str | None:
        """Why the last ceiling is undefined; None where it is defined."""
        last = self.points[-1]
        if not math.isnan(last.ceiling.value):
            return None
        if math.isnan(last.effective):
            return (
                f"the Fisher of all {last.examples} examples is zero: no measured weight changes how probable their "
                "labels are"
            )
        return f"the Fisher of all {last.examples} examples is zero but for one fold, so no two halves can be compared"

    @property
    def caution(self) -> str | None:
        """What stopping by what was seen does to the last ceiling; None where it is undefined."""
        return None if self.undefined else PASSED if self.is_reached else NEVER_PASSED

    def record(self) -> dict[str, Any]:
        """Describe it in plain JSON values.

        Returns:
            Target, rows that could be taken and those of the whole data set, the points, and what to beware of;
            undefined is null.
        """

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        points = [
            {
                "examples": point.examples,
                "effective_examples": plain(point.effective),
                "ceiling": plain(point.ceiling.value),
                "low": plain(point.ceiling.low),
                "high": plain(point.ceiling.high),
                "rows": None if point.rows is None else point.rows._asdict(),
            }
            for point in self.points
        ]
        return {
            "target": self.target,
            "fewest_effective_examples": FEW_EXAMPLES,
            "reached": self.is_reached,
            "rows": self.available,
            "rows_in_all": self.in_all,
            "points": points,
            "caution": self.caution,
            "undefined": self.undefined,
        }
