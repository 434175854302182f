"""Which route covers which parameter, and the proof on real rows that it is the right one.

Three routes: ``rule`` (hooks, on the layer or on a replay of one module), ``generic`` (one example at a time through
the whole model, exact by construction, for just those parameters) and ``dormant`` (no example looked at uses it;
watched, and moved to ``generic`` as soon as one does).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from commonweight.base.errors import MeasurementError
from commonweight.base.names import some
from commonweight.base.text import DASH, Grid, to_html
from commonweight.diagonal_fisher.accumulator import (
    in_blocks,
    largest_difference,
    largest_magnitude,
    new_total,
    subtract_square,
    worst,
)
from commonweight.diagonal_fisher.capture import Capture
from commonweight.diagonal_fisher.first_call import check_first, spread_positions
from commonweight.diagonal_fisher.problem import (
    ALL,
    TOLERANCE,
    Problem,
    only_gradients_of,
    portions,
    single_gradients_of,
)
from commonweight.diagonal_fisher.rules import rule_name
from commonweight.diagonal_fisher.sharded import gathered
from commonweight.diagonal_fisher.sites import Site, find_sites, owners_of, replay_sites

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.first_call import FirstPass


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
        return f"{self.to_markdown()}\n{self._worst()}"

    def _repr_html_(self) -> str:
        groups: dict[tuple[str, str, str], dict[str, float]] = {}
        for route in ("rule", "generic", "dormant"):
            for name, found in self.of(route).items():
                groups.setdefault((route, found.rule, found.reason), {})[name] = found.error
        rows = tuple(
            (route, rule or DASH, str(len(errors)), _error(errors.values()), some(list(errors)), reason or DASH)
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


ROWS = 3
"""Examples on which every rule is compared with single-example passes."""

LEVELS = 4
"""Modules that are tried for a replay: the owner of the parameter and those above it."""

NOISE = 10.0
"""How many times the rounding between two ordinary gradients of one example a rule may differ by."""

UNEVEN = "the number of its rows depends on the example"
ZERO = "its gradient is zero for the rows looked at, so a rule could not be checked"

Uses = Sequence[tuple[nn.Module, Site]]


def verified_routes(
    problem: Problem, batches: Sequence[Batch], first: FirstPass, share: float = ALL
) -> tuple[dict[str, Route], Problem]:
    """Choose routes by comparing every rule with single-example passes on a few rows."""
    # A parameter whose rule fails is compared again with a replay of the module that owns it, and then of the modules
    # above (attention keeps a projection that it never calls; a parametrisation lies below the layer that uses it).
    probe = problem.probe()
    largest = max(batches, key=lambda batch: batch.size)
    rows = largest.select(spread_positions(largest.size, ROWS))
    covered = [name for name, parameter in problem.parameters.items() if parameter.numel()]
    sites = find_sites(problem.model, covered)
    uneven = check_first(probe, batches, first)
    routes = {name: Route("rule", "empty", 0.0) for name in problem.parameters if name not in covered}
    chosen: dict[str, Uses] = {}
    owners = owners_of(problem.model, covered)
    attempts: list[Mapping[str, Uses]] = [sites]
    if problem.is_sharded:  # no module runs by itself
        attempts = [{name: [use for use in uses if use[1].rule is not None] for name, uses in sites.items()}]
    else:
        for above in range(LEVELS):
            attempts.append({name: replay_sites(problem.model, name, owners[name], above=above) for name in covered})
    for attempt in attempts:
        uses = {
            name: attempt[name]
            for name in covered
            if attempt[name] and name not in chosen and (name not in routes or _may_try_again(routes[name]))
        }
        for name in [name for name, found in uses.items() if any(module in uneven for module, _ in found)]:
            rule = rule_names(uses.pop(name))
            routes.setdefault(name, Route("generic", rule, reason=UNEVEN))
        if uses:
            for name, route in compare_with_single(probe, rows, uses, share).items():
                if route.route == "rule" and name in routes:
                    routes[name] = replace(route, reason=f"instead of {routes[name].rule}: {routes[name].reason}")
                elif route.route != "generic" or name not in routes:
                    routes[name] = route
                if route.route == "rule":
                    chosen[name] = uses[name]
    unseen = [name for name in covered if name not in routes]
    used = set(single_gradients_of(probe, _last_of(rows), unseen)) if unseen else set()
    for name in unseen:
        routes[name] = Route("generic", reason=_no_rule(problem, name)) if name in used else DORMANT
    ordered = {name: routes[name] for name in problem.parameters}
    return ordered, replace(problem, sites=chosen, alone=problem.alone and _same_alone(probe, rows, ordered, share))


def all_generic(problem: Problem, batches: Sequence[Batch], first: FirstPass) -> tuple[dict[str, Route], Problem]:
    """Measure every parameter one example at a time, all of them free, after the checks that need no rule."""
    with problem.differentiating((), alone=False):
        check_first(problem.probe(), batches, first)
    route = Route("generic", reason="the model differentiates by its parameters inside its own forward pass")
    return dict.fromkeys(problem.parameters, route), replace(problem, alone=False)


def _may_try_again(route: Route) -> bool:
    return route.route == "generic" and route.reason != ZERO


def _same_alone(probe: Problem, rows: Batch, routes: Mapping[str, Route], share: float) -> bool:
    """Whether the generic parameters have the same gradients when all others are frozen."""
    # Reentrant checkpointing loses the graph where nothing before it needs a gradient.
    generic = [name for name, route in routes.items() if route.route == "generic"]
    for names in portions(probe, generic, share):
        expected = single_gradients_of(probe, _last_of(rows), names)
        alone = single_gradients_of(probe, _last_of(rows), names, together=generic)
        for name in names:
            if name not in alone or name not in expected:
                return False
            difference, largest = largest_difference(alone[name], expected[name]), largest_magnitude(expected[name])
            if not difference <= 1e-2 * largest:  # nan is not the same
                return False
        expected.clear()
        alone.clear()
    return True


def _last_of(rows: Batch) -> Batch:
    """Take the last row, anew for every pass: models write into their inputs."""
    return rows.select([rows.size - 1])


def _no_rule(problem: Problem, name: str) -> str:
    parameter = problem.parameters[name]
    owners = {
        type(module).__name__
        for module in problem.model.modules()
        if any(own is parameter for own in module._parameters.values())
    }
    return f"no rule for {name.rpartition('.')[2]!r} of {', '.join(sorted(owners))}"


@dataclass(frozen=True)
class _Finding:
    """What the rules and the ordinary passes found for one parameter."""

    used: bool
    fired: bool
    refused: str | None
    moved: int
    """Rows that have a gradient."""

    peak: float
    """Largest root of the rules' sum."""

    scale: float
    """What a gap is measured by: the largest magnitude that rules or passes found."""

    gap: float


def compare_with_single(probe: Problem, rows: Batch, sites: Mapping[str, Uses], share: float = ALL) -> dict[str, Route]:
    """Let rules measure the rows, and hold them against ordinary passes over each row alone."""
    tolerance = TOLERANCE[probe.dtype]
    routes: dict[str, Route] = {}
    rounding: dict[str, float] = {}
    largest = 0.0
    for names in portions(probe, sites, share):
        findings, last = _find(probe, rows, sites, names)
        largest = max(largest, *(finding.peak for finding in findings.values()))
        doubtful = {}
        for name, finding in findings.items():
            rule = rule_names(sites[name])
            error = finding.gap / finding.scale if finding.scale > 0 else 0.0
            if not finding.used and not finding.fired:
                routes[name] = DORMANT
            elif finding.refused is not None:
                routes[name] = Route("generic", rule, reason=finding.refused)
            elif not finding.fired:
                routes[name] = Route("generic", rule, reason="used outside the call of its own layer")
            elif finding.scale == 0 or finding.moved < min(2, rows.size):
                routes[name] = Route("generic", rule, reason=ZERO)
            elif error <= tolerance:
                routes[name] = Route("rule", rule, error)
            else:
                routes[name] = Route("generic", rule, error, "its rule disagrees with single-example passes")
                doubtful[name] = finding.gap
        if doubtful and rows.size > 1:
            # Two ordinary gradients of one example, alone and inside its batch, differ by rounding: that much is
            # allowed.
            last = {name: gradient for name, gradient in last.items() if name in doubtful}
            rounding |= {name: doubtful[name] for name in _within_rounding(probe, rows, doubtful, last)}
        last.clear()
    for name, gap in rounding.items():
        rule = routes[name].rule
        routes[name] = Route("rule", rule, gap / largest, "rounding, as a share of the network's largest")
    return routes


def _find(
    probe: Problem, rows: Batch, sites: Mapping[str, Uses], names: Sequence[str]
) -> tuple[dict[str, _Finding], dict[str, Tensor]]:
    """Compare a portion of the parameters, and give the gradients of the last row too."""
    # With F the rules' sum over the rows, the squares of all single gradients but the last are taken away, and what is
    # left is compared with the magnitude of the last: no second set of totals is needed, and a row that was mixed with
    # another, or missed, shows.
    totals, fired, refused = _run_rules(probe, rows, sites, names)
    peak = {name: math.sqrt(largest_magnitude(total)) for name, total in totals.items()}
    used: set[str] = set()
    moved: Counter[str] = Counter()
    last: dict[str, Tensor] = {}
    for i in range(rows.size):
        last.clear()  # one set of gradients at a time
        last = single_gradients_of(probe, rows.select([i]), names)
        used |= last.keys()
        moved.update(name for name, gradient in last.items() if largest_magnitude(gradient) != 0)
        if i < rows.size - 1:
            for name in last:
                subtract_square(totals[name], last[name])
    findings = {}
    for name, total in totals.items():
        magnitude = largest_magnitude(last[name]) if name in last else 0.0
        findings[name] = _Finding(
            used=name in used,
            fired=name in fired,
            refused=refused.get(name),
            moved=moved[name],
            peak=peak[name],
            scale=max(peak[name], magnitude),
            gap=_largest_gap(total, last.get(name)),
        )
    return findings, last


def _largest_gap(squares: Tensor, gradient: Tensor | None) -> float:
    """Compare the roots of squares with the magnitudes of a gradient, without a copy of either."""
    largest = []
    for block, *others in in_blocks(squares) if gradient is None else in_blocks(squares, gradient):
        magnitude = block.abs().sqrt_().mul_(block.sign())
        for other in others:
            magnitude.sub_(other.abs())
        largest.append(largest_magnitude(magnitude))
    return worst(largest)


def _within_rounding(probe: Problem, rows: Batch, gaps: Mapping[str, float], alone: dict[str, Tensor]) -> set[str]:
    """Find the parameters whose gap is at most ``NOISE`` times what ordinary gradients of some row differ by."""
    left = dict(gaps)  # the gradients of the last row, alone, are there already
    for i in reversed(range(rows.size)):
        names = list(left)
        alone = alone or single_gradients_of(probe, rows.select([i]), names)
        with only_gradients_of(probe, names), probe.differentiating(names, alone=False):
            ((vector, _),) = probe.passes(rows)
            if not vector.requires_grad:
                break
            vector[i].backward()
            among = {name: gathered(p.grad) for name in names if (p := probe.parameters[name]).grad is not None}
            for name in among.keys() & alone.keys():
                if left[name] <= NOISE * largest_difference(among[name].to_dense(), alone[name]):
                    del left[name]
        among.clear()
        alone.clear()
        if not left:
            break
    return gaps.keys() - left.keys()


def _run_rules(
    problem: Problem, rows: Batch, sites: Mapping[str, Uses], names: Collection[str]
) -> tuple[dict[str, Tensor], set[str], dict[str, str]]:
    """Let all rules measure the rows; embeddings that cannot be repeated over the batch are left out."""
    ((plain, _),) = problem.passes(rows)
    left_out: set[str] = set()
    while True:
        totals = {name: new_total(problem.parameters[name]) for name in names}
        for name in sites:
            problem.shapes.outside.pop(name, None)
        kept = {name: uses for name, uses in sites.items() if name not in left_out}
        capture = Capture(kept, problem.in_use, totals, problem.shapes, learning=True)
        repeated: set[str] = set()
        try:
            with capture:
                capture.begin(rows.size, rows.signature)
                for vector, last in problem.passes(rows):
                    _check_unchanged(vector, plain)
                    capture.backward(vector, last=last)
        except Exception:
            repeated = {
                name
                for name, uses in sites.items()
                if name not in left_out and any(module in problem.shapes.shared for module, _ in uses)
            }
            if not repeated:
                raise
            left_out |= repeated
            problem.shapes.shared.clear()
        else:
            capture.refused.update(dict.fromkeys(left_out, "the model cannot use its output repeated over the batch"))
            return totals, capture.fired, capture.refused


def _check_unchanged(vector: Tensor, plain: Tensor) -> None:
    if not torch.allclose(vector.detach(), plain, rtol=1e-2, atol=1e-2):
        raise MeasurementError("the hooks that measure changed the losses of the model: please report this model")


def rule_names(uses: Uses) -> str:
    """Name the rules of a parameter."""
    return " + ".join(dict.fromkeys(rule_name(site.rule) for _, site in uses))
