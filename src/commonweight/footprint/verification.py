"""The choice of routes, and the proof on real rows that it is the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from commonweight.footprint.comparison import ZERO, Uses, compare_with_single, rule_names, run_rules
from commonweight.footprint.repeatable import CENSUS, check_repeatable, spread_positions
from commonweight.footprint.routes import DORMANT, Route
from commonweight.footprint.sites import find_sites, owners_of, replay_sites

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.footprint.batch import Batch
    from commonweight.footprint.problem import Problem

ROWS = 3
"""Examples on which every rule is compared with single-example passes."""

LEVELS = 4
"""Modules that are tried for a replay: the owner of the parameter and those above it."""

UNEVEN = "the number of its rows depends on the example"


def unverified_routes(problem: Problem, batches: Sequence[Batch]) -> tuple[dict[str, Route], Problem]:
    """Choose routes by layer type alone; only embeddings called once for a whole batch are tried out on real rows.

    Args:
        problem: What is measured.
        batches: Real rows.

    Returns:
        Parameter name -> route; and the problem with its sites.
    """
    covered = [name for name, parameter in problem.parameters.items() if parameter.numel()]
    sites = find_sites(problem.model, covered, hopeful=False)
    routes = {
        name: Route("rule", "empty", 0.0)
        if name not in sites
        else Route("rule", rule_names(sites[name]))
        if sites[name]
        else Route("generic", reason=_no_rule(problem, name))
        for name in problem.parameters
    }
    embeddings = {
        name: uses
        for name, uses in sites.items()
        if uses and all(isinstance(module, nn.Embedding) for module, _ in uses)
    }
    rows = _rows_of_largest(batches)
    if embeddings and rows.size > 1:
        run_rules(problem.probe(), rows, embeddings)
        problem.shapes.folded.clear()
        problem.shapes.outside.clear()
    return routes, replace(problem, sites=sites)


def verified_routes(problem: Problem, batches: Sequence[Batch]) -> tuple[dict[str, Route], Problem]:
    """Choose routes by comparing every rule with single-example passes on a few rows.

    A parameter whose rule fails is compared again with a replay of the module that owns it, and then of the modules
    above (attention keeps a projection that it never calls; a parametrisation lies below the layer that uses it).

    Args:
        problem: What is measured.
        batches: Real rows; those of the largest batch are compared.

    Returns:
        Parameter name -> route; and the problem with its sites, and with ``alone`` off if the generic route cannot
        freeze the other parameters.
    """
    probe = problem.probe()
    rows = _rows_of_largest(batches)
    covered = [name for name, parameter in problem.parameters.items() if parameter.numel()]
    sites = find_sites(problem.model, covered, hopeful=True)
    uneven: set[nn.Module] = set()
    looked_at = 0
    for batch in batches:
        if looked_at < CENSUS:
            uneven |= check_repeatable(probe, batch)
            looked_at += batch.size
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
            for name, route in compare_with_single(probe, rows, uses).items():
                if route.route == "rule" and name in routes:
                    routes[name] = replace(route, reason=f"instead of {routes[name].rule}: {routes[name].reason}")
                elif route.route != "generic" or name not in routes:
                    routes[name] = route
                if route.route == "rule":
                    chosen[name] = uses[name]
    doubtful = [name for name in covered if name not in routes or routes[name].route == "generic"]
    last: dict[str, Tensor] = {}
    if doubtful:
        (last,) = probe.single_gradients(rows.select([rows.size - 1]), doubtful, alone=False)
    for name in covered:
        if name not in routes:
            routes[name] = Route("generic", reason=_no_rule(problem, name)) if name in last else DORMANT
    ordered = {name: routes[name] for name in problem.parameters}
    return ordered, replace(problem, sites=chosen, alone=problem.alone and _same_alone(probe, rows, ordered, last))


def _may_try_again(route: Route) -> bool:
    return route.route == "generic" and route.reason != ZERO


def _same_alone(probe: Problem, rows: Batch, routes: Mapping[str, Route], expected: Mapping[str, Tensor]) -> bool:
    """Whether the generic parameters have the same gradients when all others are frozen.

    Reentrant checkpointing loses the graph where nothing before it needs a gradient.

    Returns:
        Whether they do.
    """
    names = [name for name, route in routes.items() if route.route == "generic"]
    (alone,) = probe.single_gradients(rows.select([rows.size - 1]), names, alone=True) if names else ({},)
    return all(
        name in alone
        and name in expected
        and bool((alone[name] - expected[name]).abs().max() <= 1e-2 * expected[name].abs().max())
        for name in names
    )


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
