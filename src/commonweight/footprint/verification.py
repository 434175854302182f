"""The choice of routes, and the proof on real rows that it is the right one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from commonweight.errors import CommonweightError, MeasurementError
from commonweight.footprint.capture import Capture
from commonweight.footprint.contribution import new_total
from commonweight.footprint.problem import TOLERANCE, Problem
from commonweight.footprint.routes import DORMANT, Route
from commonweight.footprint.rules import rule_name
from commonweight.footprint.sites import Site, find_sites, owners_of, replay_sites

if TYPE_CHECKING:
    from commonweight.footprint.batch import Batch

Uses = Sequence[tuple[nn.Module, Site]]

ROWS = 3
"""Examples on which every rule is compared with single-example passes."""

CENSUS = 16
"""Examples run alone, without gradients, to see that losses and row counts do not depend on the neighbours."""

LEVELS = 4
"""Modules that are tried for a replay: the owner of the parameter and those above it."""

NOISE = 10.0
"""How many times the rounding between two ordinary gradients of one example a rule may differ by."""

UNEVEN = "the number of its rows depends on the example"

ZERO = "its gradient is zero for the rows looked at, so a rule could not be checked"


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
        else Route("rule", _rule(sites[name]))
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
        _run_rules(problem.probe(), rows, embeddings)
        problem.shapes.folded.clear()
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
            uneven |= _check_repeatable(probe, batch)
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
            rule = _rule(uses.pop(name))
            routes.setdefault(name, Route("generic", rule, reason=UNEVEN))
        if uses:
            for name, route in _compare(probe, rows, uses).items():
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


def _compare(probe: Problem, rows: Batch, sites: Mapping[str, Uses]) -> dict[str, Route]:
    """Let rules measure the rows, and hold them against ordinary passes over each row alone.

    With F the rules' sum over the rows, the squares of all single gradients but the last are taken away, and what is
    left is compared with the magnitude of the last: one copy of the parameters is enough, and a row that was mixed with
    another, or missed, shows.

    Returns:
        Parameter -> route, for the parameters that have sites.
    """
    capture, totals = _run_rules(probe, rows, sites)
    peak = {name: math.sqrt(max(float(total.max()), 0.0)) for name, total in totals.items()}
    seen: set[str] = set()
    moved: Counter[str] = Counter()
    last: dict[str, Tensor] = {}
    for i in range(rows.size):
        last.clear()  # one set of gradients at a time
        (last,) = probe.single_gradients(rows.select([i]), list(probe.parameters), alone=False)
        seen |= last.keys()
        moved.update(name for name in totals if name in last and bool(last[name].any()))
        if i < rows.size - 1:
            for name in last.keys() & totals.keys():
                gradient = last[name].to(totals[name].dtype)
                totals[name].addcmul_(gradient, gradient, value=-1)
    tolerance = TOLERANCE[probe.dtype]
    routes, doubtful = {}, {}
    for name, total in totals.items():
        magnitude = total.abs().sqrt_().mul_(total.sign())
        if name in last:
            magnitude.sub_(last[name].abs())
        gap = float(magnitude.abs().max())
        scale = max(peak[name], float(last[name].abs().max()) if name in last else 0.0)
        rule = _rule(sites[name])
        error = gap / scale if scale > 0 else 0.0
        if name not in seen and name not in capture.fired:
            routes[name] = DORMANT
        elif name in capture.refused:
            routes[name] = Route("generic", rule, reason=capture.refused[name])
        elif name not in capture.fired:
            routes[name] = Route("generic", rule, reason="used outside the call of its own layer")
        elif scale == 0 or moved[name] < min(2, rows.size):
            routes[name] = Route("generic", rule, reason=ZERO)
        elif error <= tolerance:
            routes[name] = Route("rule", rule, error)
        else:
            routes[name] = Route("generic", rule, error, "its rule disagrees with single-example passes")
            doubtful[name] = gap
    if doubtful and rows.size > 1:
        # Two ordinary gradients of one example, alone and inside its batch, differ by rounding: that much is allowed.
        noise = _rounding(probe, rows, list(doubtful))
        for name, gap in doubtful.items():
            if name in noise and gap <= NOISE * noise[name]:
                share = gap / max(peak.values())
                routes[name] = Route("rule", routes[name].rule, share, "rounding, as a share of the network's largest")
    return routes


def _rounding(probe: Problem, rows: Batch, names: Sequence[str]) -> dict[str, float]:
    noise = dict.fromkeys(names, 0.0)
    parameters = {name: probe.parameters[name] for name in names}
    for i in range(rows.size):
        (alone,) = probe.single_gradients(rows.select([i]), names, alone=False)
        with probe.differentiating(names, alone=False):
            ((vector, _),) = probe.passes(rows)
            if not vector.requires_grad:
                return {}
            vector[i].backward()
            for name in names:
                gradient = parameters[name].grad
                if gradient is not None and name in alone:
                    noise[name] = max(noise[name], float((gradient.to_dense() - alone[name]).abs().max()))
    return noise


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


def _check_repeatable(problem: Problem, batch: Batch) -> set[nn.Module]:
    """Two passes must agree, and an example must not feel its neighbours.

    Returns:
        Modules that get a number of rows that depends on the example (routed tokens): no rule can know which example
        a row belongs to.

    Raises:
        MeasurementError: If either does not hold.
    """
    slack = problem.slack
    modules = list(problem.model.modules())
    rows = batch.select(_spread(batch.size, CENSUS))
    shapes: list[dict[nn.Module, list[torch.Size]]] = []
    alone = []
    first, second = problem.fingerprint(rows).detach(), problem.fingerprint(rows).detach()
    for i in range(rows.size):
        with _input_shapes(modules) as seen:
            alone.append(_alone(problem, rows.select([i])))
        shapes.append(seen)
    for other, what in (
        (
            second,
            "two passes over the same rows give different losses: a module stays random in eval mode "
            "(dropout applied with training=True, a sampled path); make it deterministic first",
        ),
        (
            torch.cat(alone),
            "an example's loss changes with the other examples of its batch: a module mixes examples (batch norm "
            "without running statistics, in-batch negatives), padding is not masked, or a tensor shared by the batch "
            "happens to be as long as the batch; per-example gradients do not exist",
        ),
    ):
        gap = (first - other).abs()
        bad = gap > slack * (1 + first.abs())
        if bad.any():
            i = int(bad.nonzero()[0])
            raise MeasurementError(
                f"{what} (example {rows.source_rows[i]}: {float(first[i]):.6g} and {float(other[i]):.6g})"
            )
    return {module for module in modules if any(seen.get(module) != shapes[0].get(module) for seen in shapes)}


def _alone(problem: Problem, example: Batch) -> Tensor:
    try:
        return problem.fingerprint(example).detach()
    except CommonweightError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise MeasurementError(
            "the model runs on a batch and not on one example (batch norm without running statistics, or a shared "
            f"tensor as long as the batch): {error}"
        ) from error


@contextmanager
def _input_shapes(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, list[torch.Size]]]:
    """Record the shape of the first argument of every call of some modules."""
    seen: dict[nn.Module, list[torch.Size]] = {}

    def note(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        seen.setdefault(module, []).append(x.shape if isinstance(x, Tensor) else torch.Size())

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in modules
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _rows_of_largest(batches: Sequence[Batch]) -> Batch:
    largest = max(batches, key=lambda batch: batch.size)
    return largest.select(_spread(largest.size, ROWS))


def _spread(size: int, most: int) -> list[int]:
    """Choose up to ``most`` positions of a batch, first and last among them."""
    if size <= most:
        return list(range(size))
    return sorted({round(k * (size - 1) / (most - 1)) for k in range(most)})


def _run_rules(problem: Problem, rows: Batch, sites: Mapping[str, Uses]) -> tuple[Capture, dict[str, Tensor]]:
    """Let all rules measure the rows; embeddings that cannot be repeated over the batch are left out.

    Returns:
        The hooks, with what they refused, and the sums of squares.

    Raises:
        Exception: What the model raises when nothing was repeated.
    """
    ((plain, _),) = problem.passes(rows)
    left_out: set[str] = set()
    while True:
        totals = {name: new_total(problem.parameters[name]) for name in sites}
        capture = Capture(
            {name: uses for name, uses in sites.items() if name not in left_out}, totals, problem.shapes, learning=True
        )
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
            return capture, totals


def _check_unchanged(vector: Tensor, plain: Tensor) -> None:
    if not torch.allclose(vector.detach(), plain, rtol=1e-2, atol=1e-2):
        raise MeasurementError("the hooks that measure changed the losses of the model: please report this model")


def _rule(uses: Uses) -> str:
    return " + ".join(dict.fromkeys(rule_name(site.rule) for _, site in uses))


def _no_rule(problem: Problem, name: str) -> str:
    parameter = problem.parameters[name]
    owners = {
        type(module).__name__
        for module in problem.model.modules()
        if any(own is parameter for own in module._parameters.values())
    }
    return f"no rule for {name.rpartition('.')[2]!r} of {', '.join(sorted(owners))}"
