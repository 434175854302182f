"""Rules held against single-example passes on a few rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from commonweight.base.errors import MeasurementError
from commonweight.diagonal_fisher.accumulator import (
    in_blocks,
    largest_difference,
    largest_magnitude,
    new_total,
    subtract_square,
)
from commonweight.diagonal_fisher.capture import Capture
from commonweight.diagonal_fisher.problem import (
    ALL,
    TOLERANCE,
    Problem,
    only_gradients_of,
    portions,
    single_gradients_of,
)
from commonweight.diagonal_fisher.routes import DORMANT, Route
from commonweight.diagonal_fisher.rules import rule_name
from commonweight.diagonal_fisher.sites import Site

if TYPE_CHECKING:
    from commonweight.diagonal_fisher.batch import Batch

Uses = Sequence[tuple[nn.Module, Site]]

NOISE = 10.0
"""How many times the rounding between two ordinary gradients of one example a rule may differ by."""

ZERO = "its gradient is zero for the rows looked at, so a rule could not be checked"


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
    findings: dict[str, _Finding] = {}
    for names in portions(probe, sites, share):
        findings |= _find(probe, rows, sites, names)
    tolerance = TOLERANCE[probe.dtype]
    routes, doubtful = {}, []
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
            doubtful.append(name)
    if doubtful and rows.size > 1:
        # Two ordinary gradients of one example, alone and inside its batch, differ by rounding: that much is allowed.
        noise: dict[str, float] = {}
        for names in portions(probe, doubtful, share):
            noise |= _rounding(probe, rows, names)
        largest = max(finding.peak for finding in findings.values())
        for name in doubtful:
            gap = findings[name].gap
            if name in noise and gap <= NOISE * noise[name]:
                rule = routes[name].rule
                routes[name] = Route("rule", rule, gap / largest, "rounding, as a share of the network's largest")
    return routes


def _find(probe: Problem, rows: Batch, sites: Mapping[str, Uses], names: Sequence[str]) -> dict[str, _Finding]:
    """Compare a portion of the parameters."""
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
        moved.update(name for name, gradient in last.items() if bool(gradient.any()))
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
    return findings


def _largest_gap(squares: Tensor, gradient: Tensor | None) -> float:
    """Compare the roots of squares with the magnitudes of a gradient, without a copy of either."""
    largest = []
    for block, *others in in_blocks(squares) if gradient is None else in_blocks(squares, gradient):
        magnitude = block.abs().sqrt_().copysign_(block)
        for other in others:
            magnitude.sub_(other.abs())
        largest.append(magnitude.abs_().max())
    return float(torch.stack(largest).max())  # nan stays nan


def _rounding(probe: Problem, rows: Batch, names: Sequence[str]) -> dict[str, float]:
    noise = dict.fromkeys(names, 0.0)
    parameters = {name: probe.parameters[name] for name in names}
    for i in range(rows.size):
        alone = single_gradients_of(probe, rows.select([i]), names)
        with only_gradients_of(probe, names), probe.differentiating(names, alone=False):
            ((vector, _),) = probe.passes(rows)
            if not vector.requires_grad:
                return {}
            vector[i].backward()
            among = {name: p.grad.to_dense() for name, p in parameters.items() if p.grad is not None}
        for name in among.keys() & alone.keys():
            noise[name] = max(noise[name], largest_difference(among[name], alone[name]))
        among.clear()
        alone.clear()
    return noise


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
            return totals, capture.fired, capture.refused


def _check_unchanged(vector: Tensor, plain: Tensor) -> None:
    if not torch.allclose(vector.detach(), plain, rtol=1e-2, atol=1e-2):
        raise MeasurementError("the hooks that measure changed the losses of the model: please report this model")


def rule_names(uses: Uses) -> str:
    """Name the rules of a parameter."""
    return " + ".join(dict.fromkeys(rule_name(site.rule) for _, site in uses))
