"""Rules held against single-example passes on a few rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from commonweight.errors import MeasurementError
from commonweight.footprint.accumulator import BLOCK, new_total
from commonweight.footprint.capture import Capture
from commonweight.footprint.problem import TOLERANCE, Problem
from commonweight.footprint.routes import DORMANT, Route
from commonweight.footprint.rules import rule_name
from commonweight.footprint.sites import Site

if TYPE_CHECKING:
    from commonweight.footprint.batch import Batch

Uses = Sequence[tuple[nn.Module, Site]]

NOISE = 10.0
"""How many times the rounding between two ordinary gradients of one example a rule may differ by."""

ZERO = "its gradient is zero for the rows looked at, so a rule could not be checked"


def compare_with_single(probe: Problem, rows: Batch, sites: Mapping[str, Uses]) -> dict[str, Route]:
    """Let rules measure the rows, and hold them against ordinary passes over each row alone.

    With F the rules' sum over the rows, the squares of all single gradients but the last are taken away, and what is
    left is compared with the magnitude of the last: one copy of the parameters is enough, and a row that was mixed with
    another, or missed, shows.

    Args:
        probe: What is measured, with a label rule of one pass.
        rows: The rows.
        sites: What covers each parameter that is to be compared.

    Returns:
        Parameter -> route, for the parameters that have sites.
    """
    capture, totals = run_rules(probe, rows, sites)
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
        gap = _largest_gap(total, last.get(name))
        scale = max(peak[name], float(last[name].abs().max()) if name in last else 0.0)
        rule = rule_names(sites[name])
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


def _largest_gap(squares: Tensor, gradient: Tensor | None) -> float:
    """Compare the roots of squares with the magnitudes of a gradient, a few rows at a time: no copy of a layer."""
    rows = squares.flatten(1) if squares.dim() > 1 else squares.reshape(-1, 1)
    others = None if gradient is None else gradient.reshape(rows.shape)
    step = max(1, BLOCK // rows.shape[1])
    largest = []
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        magnitude = block.abs().sqrt_().copysign_(block)
        if others is not None:
            magnitude.sub_(others[first : first + step].abs())
        largest.append(magnitude.abs_().max())
    return float(torch.stack(largest).max())  # nan stays nan


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


def run_rules(problem: Problem, rows: Batch, sites: Mapping[str, Uses]) -> tuple[Capture, dict[str, Tensor]]:
    """Let all rules measure the rows; embeddings that cannot be repeated over the batch are left out.

    Args:
        problem: What is measured, with a label rule of one pass.
        rows: The rows.
        sites: What covers each parameter that is to be measured.

    Returns:
        The hooks, with what they refused, and the sums of squares.

    Raises:
        Exception: What the model raises when nothing was repeated.
    """
    ((plain, _),) = problem.passes(rows)
    left_out: set[str] = set()
    while True:
        totals = {name: new_total(problem.parameters[name]) for name in sites}
        for name in sites:
            problem.shapes.outside.pop(name, None)
        kept = {name: uses for name, uses in sites.items() if name not in left_out}
        capture = Capture(kept, problem.parameters, totals, problem.shapes, learning=True)
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


def rule_names(uses: Uses) -> str:
    """Name the rules of a parameter.

    Args:
        uses: What covers it.

    Returns:
        Names joined by plus signs.
    """
    return " + ".join(dict.fromkeys(rule_name(site.rule) for _, site in uses))
