"""Which route covers which parameter.

Three routes: ``rule`` (hooks, on the layer or on a replay of one module), ``generic`` (one example at a time through
the whole model, exact by construction, for just those parameters) and ``dormant`` (no example looked at uses it;
watched, and moved to ``generic`` as soon as one does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        return (
            f"{self.to_markdown()}\nlargest error of a rule: {self.largest_error:.1e} (accepted: {self.tolerance:.0e})"
        )

    def to_markdown(self) -> str:
        """Write one line per parameter as a Markdown table.

        Returns:
            The table, ending with a line break.
        """
        lines = ["| parameter | route | rule | error | reason |", "| --- | --- | --- | ---: | --- |"]
        for name, route in self.routes.items():
            error = "–" if math.isnan(route.error) else f"{route.error:.1e}"
            reason = route.reason.replace("|", r"\|").replace("\n", " ")
            lines.append(f"| {name} | {route.route} | {route.rule or '–'} | {error} | {reason} |")
        return "\n".join(lines) + "\n"
