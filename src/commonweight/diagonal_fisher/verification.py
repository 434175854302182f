"""The choice of routes, and the proof on real rows that it is the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.diagonal_fisher.accumulator import largest_difference, largest_magnitude
from commonweight.diagonal_fisher.comparison import ZERO, Uses, compare_with_single, rule_names
from commonweight.diagonal_fisher.problem import ALL, portions, single_gradients_of
from commonweight.diagonal_fisher.repeatable import check_first, spread_positions
from commonweight.diagonal_fisher.routes import DORMANT, Route
from commonweight.diagonal_fisher.sites import find_sites, owners_of, replay_sites

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.problem import Problem

ROWS = 3
"""Examples on which every rule is compared with single-example passes."""

LEVELS = 4
"""Modules that are tried for a replay: the owner of the parameter and those above it."""

UNEVEN = "the number of its rows depends on the example"


def verified_routes(problem: Problem, batches: Sequence[Batch], share: float = ALL) -> tuple[dict[str, Route], Problem]:
    """Choose routes by comparing every rule with single-example passes on a few rows."""
    # A parameter whose rule fails is compared again with a replay of the module that owns it, and then of the modules
    # above (attention keeps a projection that it never calls; a parametrisation lies below the layer that uses it).
    probe = problem.probe()
    rows = _rows_of_largest(batches)
    covered = [name for name, parameter in problem.parameters.items() if parameter.numel()]
    sites = find_sites(problem.model, covered)
    uneven = check_first(probe, batches)
    routes = {name: Route("rule", "empty", 0.0) for name in problem.parameters if name not in covered}
    chosen: dict[str, Uses] = {}
    owners = owners_of(problem.model, covered)
    attempts: list[Mapping[str, Uses]] = [sites]
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


def _rows_of_largest(batches: Sequence[Batch]) -> Batch:
    largest = max(batches, key=lambda batch: batch.size)
    return largest.select(spread_positions(largest.size, ROWS))


def _no_rule(problem: Problem, name: str) -> str:
    parameter = problem.parameters[name]
    owners = {
        type(module).__name__
        for module in problem.model.modules()
        if any(own is parameter for own in module._parameters.values())
    }
    return f"no rule for {name.rpartition('.')[2]!r} of {', '.join(sorted(owners))}"
