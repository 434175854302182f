"""Which route covers which parameter.

Three routes: ``rule`` (hooks, on the layer or on a replay of one module), ``generic`` (one example at a time through
the whole model, exact by construction, for just those parameters) and ``dormant`` (no example looked at uses it;
watched, and moved to ``generic`` as soon as one does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from commonweight.base.text import DASH, Grid, to_html

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Route:
    """How one parameter is measured."""

    route: Literal["rule", "generic", "dormant"]
    """``rule``, ``generic`` or ``dormant``."""

    rule: str = ""
    """Names of the rules that cover it, such as ``linear_weight``."""

    error: float = math.nan
    """Largest difference of gradient magnitudes from single-example passes, as a share of the parameter's largest."""

    reason: str = ""
    """Why it does not take a rule."""


DORMANT = Route("dormant", reason="not used by the rows looked at")
MOST_NAMED = 4


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found: every parameter, its route, and how exact its rule is."""

    routes: Mapping[str, Route]
    """Parameter name -> route, in the order of the model."""

    rows: int
    """Examples compared."""

    tolerance: float
    """Largest accepted error."""

    @property
    def largest_error(self) -> float:
        """Largest error among the rules that will be used; 0 where none is."""
        return max((route.error for route in self.routes.values() if route.route == "rule"), default=0.0)

    def of(self, route: str) -> dict[str, Route]:
        """Select the parameters that take one route.

        Args:
            route: ``rule``, ``generic`` or ``dormant``.

        Returns:
            Parameter name -> route.
        """
        return {name: found for name, found in self.routes.items() if found.route == route}

    def __str__(self) -> str:
        return f"{self.to_markdown()}\n{self._worst()}"

    def _repr_html_(self) -> str:
        groups: dict[tuple[str, str, str], dict[str, float]] = {}
        for route in ("rule", "generic", "dormant"):
            for name, found in self.of(route).items():
                groups.setdefault((route, found.rule, found.reason), {})[name] = found.error
        rows = tuple(
            (route, rule or DASH, str(len(errors)), _error(errors.values()), _some(list(errors)), reason or DASH)
            for (route, rule, reason), errors in groups.items()
        )
        header = ("route", "rule", "parameters", "largest error", "names", "reason")
        title = f"Routes (parameters: {len(self.routes)})"
        return to_html([Grid(title, header, rows), f"Compared on {self.rows} rows; {self._worst()}."])

    def _worst(self) -> str:
        return f"largest error of a rule: {self.largest_error:.1e} (accepted: {self.tolerance:.0e})"

    def to_markdown(self) -> str:
        """Write one line per parameter as a Markdown table.

        Returns:
            The table, ending with a line break.
        """
        lines = ["| parameter | route | rule | error | reason |", "| --- | --- | --- | ---: | --- |"]
        for name, route in self.routes.items():
            reason = route.reason.replace("|", r"\|").replace("\n", " ")
            lines.append(f"| {name} | {route.route} | {route.rule or DASH} | {_error([route.error])} | {reason} |")
        return "\n".join(lines) + "\n"


def _error(errors: Iterable[float]) -> str:
    worst = max((error for error in errors if not math.isnan(error)), default=math.nan)
    return DASH if math.isnan(worst) else f"{worst:.1e}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown}, …"
