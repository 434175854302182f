"""Which route covers which parameter, and the proof on real rows that it is the right one.

Three routes: ``rule`` (hooks), ``generic`` (one example at a time, exact by construction, for just those parameters) and
``dormant`` (no example looked at uses it; watched, and moved to ``generic`` as soon as one does).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from commonweight.errors import MeasurementError
from commonweight.footprint.batch import Batch
from commonweight.footprint.capture import Capture, Site, find_sites
from commonweight.footprint.contribution import new_total
from commonweight.footprint.likelihood import LabelRule, Likelihood, per_example
from commonweight.footprint.rules import rule_name

ROWS = 3
"""Examples on which every rule is compared with single-example passes."""

CENSUS = 16
"""Examples run alone, without gradients, to see that losses and row counts do not depend on the neighbours."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Largest accepted difference of gradient magnitudes, as a share of the parameter's largest, per model type."""

FLOOR = {torch.float64: 1e-7, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Gradients below this share of the network's largest are rounding noise (attention key biases) and are not compared
on their own scale."""


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


@dataclass(frozen=True)
class Problem:
    """What is measured: the model, its parameters, and where labels come from."""

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    likelihood: Likelihood
    label_rule: LabelRule
    seed: int
    samples: int
    alone: bool
    """Whether the generic route may freeze the parameters it does not differentiate by (cheaper; checked first)."""

    shared: set[nn.Module] = field(default_factory=set)
    """Embeddings called once for the whole batch."""

    @property
    def dtype(self) -> torch.dtype:
        """The least accurate floating type among the parameters."""
        return least_accurate(self.parameters.values())

    def probe(self) -> Problem:
        """Reduce the label rule to a single pass, which exercises every layer as well as all passes do.

        Returns:
            The same problem with given labels, or with one draw where the labels are the model's.
        """
        return self if self.label_rule == "data" else replace(self, label_rule="sampled", samples=1)

    def passes(self, batch: Batch) -> Iterator[tuple[Tensor, bool]]:
        """Run the model on a batch and give the passes of the label rule.

        Args:
            batch: The batch.

        Yields:
            A vector ``[batch]``, and whether it is the last.
        """
        outputs = batch.call(self.model, with_labels=self.likelihood.passes_labels)
        vectors = self.likelihood.passes(outputs, batch, self.label_rule, self.seed, self.samples)
        del outputs
        current = next(vectors)
        for following in vectors:
            yield per_example(current, batch), False
            current = following
        yield per_example(current, batch), True

    def single_gradients(self, example: Batch, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Differentiate one example in the ordinary way: the definition that everything is compared with.

        Args:
            example: A batch of one example.
            names: Parameters to differentiate by.

        Yields:
            For every pass, the gradients of the parameters that were used.
        """
        chosen = {name: self.parameters[name] for name in names}
        free = chosen if self.alone else self.parameters
        try:
            for parameter in free.values():
                parameter.requires_grad_(True)
            for vector, last in self.passes(example):
                if vector.requires_grad:
                    vector.sum().backward(retain_graph=not last)
                gradients = {name: p.grad for name, p in chosen.items() if p.grad is not None}
                for parameter in free.values():
                    parameter.grad = None
                yield {name: gradient.to_dense() for name, gradient in gradients.items()}
        finally:
            for parameter in free.values():
                parameter.requires_grad_(False)
                parameter.grad = None


def least_accurate(parameters: Iterable[Tensor]) -> torch.dtype:
    """Find the floating type that limits how exactly a model can be compared with itself.

    Args:
        parameters: The parameters.

    Returns:
        The type with the largest tolerance.
    """
    dtypes = {parameter.dtype for parameter in parameters}
    return max((d for d in dtypes if d in TOLERANCE), key=TOLERANCE.__getitem__, default=torch.float32)


def unverified_routes(problem: Problem) -> dict[str, Route]:
    """Choose routes by layer type alone.

    Args:
        problem: What is measured.

    Returns:
        Parameter name -> route.
    """
    names = _rule_names(find_sites(problem.model, problem.parameters, hopeful=False))
    return {
        name: Route("rule", names[name]) if name in names else Route("generic", reason=_no_rule(problem, name))
        for name in problem.parameters
    }


def verified_routes(problem: Problem, batches: Sequence[Batch]) -> tuple[dict[str, Route], Problem]:
    """Choose routes by comparing every rule with single-example passes on a few rows.

    With F the rules' sum over the rows, the squares of all single gradients but the last are taken away, and what is
    left is compared with the magnitude of the last: one copy of the parameters is enough, and a row that was mixed with
    another, or missed, shows.

    Args:
        problem: What is measured.
        batches: Real rows; those of the largest batch are compared.

    Returns:
        Parameter name -> route; and the problem, with ``alone`` off if the generic route cannot freeze the rest.
    """
    probe = problem.probe()
    largest = max(batches, key=lambda batch: batch.size)
    rows = largest.select(_spread(largest.size, ROWS))
    sites = find_sites(problem.model, problem.parameters, hopeful=True)
    rules = _rule_names(sites)
    uneven: dict[str, str] = {}
    looked_at = 0
    for batch in batches:
        if looked_at < CENSUS:
            uneven |= _check_repeatable(probe, batch, sites)
            looked_at += batch.size
    sites = {module: [site for site in here if site.name not in uneven] for module, here in sites.items()}
    capture, totals = _run_rules(probe, rows, sites)
    capture.refused.update(uneven)
    peak = {name: math.sqrt(float(total.max())) if total.numel() else 0.0 for name, total in totals.items()}
    seen: set[str] = set()
    last: dict[str, Tensor] = {}
    for i in range(rows.size):
        (last,) = probe.single_gradients(rows.select([i]), list(problem.parameters))
        seen |= last.keys()
        if i < rows.size - 1:
            for name in last.keys() & totals.keys():
                gradient = last[name].to(totals[name].dtype)
                totals[name].addcmul_(gradient, gradient, value=-1)
    errors = _errors(problem.dtype, totals, peak, last)
    routes = {}
    for name in problem.parameters:
        rule, error = rules.get(name, ""), errors.get(name, math.nan)
        if name not in seen and name not in capture.fired:
            routes[name] = Route("dormant", rule, reason="not used by the rows looked at")
        elif not rule:
            routes[name] = Route("generic", reason=_no_rule(problem, name))
        elif name in capture.refused:
            routes[name] = Route("generic", rule, reason=capture.refused[name])
        elif name not in capture.fired:
            routes[name] = Route("generic", rule, reason="used outside the call of its own layer")
        elif not error <= TOLERANCE[problem.dtype]:
            routes[name] = Route("generic", rule, error, "its rule disagrees with single-example passes")
        else:
            routes[name] = Route("rule", rule, error)
    return routes, replace(problem, alone=_same_alone(probe, rows, routes, last))


def _same_alone(probe: Problem, rows: Batch, routes: Mapping[str, Route], expected: Mapping[str, Tensor]) -> bool:
    """Whether the generic parameters have the same gradients when all others are frozen (reentrant checkpointing
    loses the graph then)."""
    names = [name for name, route in routes.items() if route.route == "generic"]
    (alone,) = probe.single_gradients(rows.select([rows.size - 1]), names) if names else ({},)
    return all(
        (name in alone) == (name in expected)
        and (name not in alone or torch.allclose(alone[name], expected[name], rtol=1e-2, atol=1e-6))
        for name in names
    )


def _check_repeatable(problem: Problem, batch: Batch, sites: Mapping[nn.Module, Sequence[Site]]) -> dict[str, str]:
    """Two passes must agree, and an example must not feel its neighbours.

    Returns:
        Parameters whose layer gets a number of rows that depends on the example (routed tokens): no rule can know
        which example a row belongs to.
    """
    slack = 1e-3 if problem.dtype in {torch.float32, torch.float64} else 0.1
    rows = batch.select(_spread(batch.size, CENSUS))
    shapes: list[dict[nn.Module, list[torch.Size]]] = []
    alone = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
        ((first, _),) = problem.passes(rows)
        ((second, _),) = problem.passes(rows)
        for i in range(rows.size):
            with _input_shapes(sites) as seen:
                ((vector, _),) = problem.passes(rows.select([i]))
            shapes.append(seen)
            alone.append(vector)
    for other, what in (
        (
            second,
            "two passes over the same rows give different losses: a module stays random in eval mode "
            "(dropout applied with training=True, a sampled path); make it deterministic first",
        ),
        (
            torch.cat(alone),
            "an example's loss changes with the other examples of its batch: a module mixes examples (batch norm without "
            "running statistics, in-batch negatives), or padding is not masked; per-example gradients do not exist",
        ),
    ):
        gap = (first - other).abs()
        bad = gap > slack * (1 + first.abs())
        if bad.any():
            i = int(bad.nonzero()[0])
            raise MeasurementError(
                f"{what} (example {rows.source_rows[i]}: {float(first[i]):.6g} and {float(other[i]):.6g})"
            )
    reason = "the number of its rows depends on the example"
    return {
        site.name: reason
        for module, here in sites.items()
        if any(seen.get(module) != shapes[0].get(module) for seen in shapes)
        for site in here
    }


@contextmanager
def _input_shapes(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, list[torch.Size]]]:
    """Record the shape of the first argument of every call of some modules."""
    seen: dict[nn.Module, list[torch.Size]] = {}

    def note(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        seen.setdefault(module, []).append(x.shape if isinstance(x, Tensor) else torch.Size())

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _spread(size: int, most: int) -> list[int]:
    """Choose up to ``most`` positions of a batch, first and last among them."""
    if size <= most:
        return list(range(size))
    return sorted({round(k * (size - 1) / (most - 1)) for k in range(most)})


def _run_rules(
    problem: Problem, rows: Batch, sites: Mapping[nn.Module, Sequence[Site]]
) -> tuple[Capture, dict[str, Tensor]]:
    """Let all rules measure the rows; embeddings that cannot be repeated over the batch are left out."""
    left_out: set[str] = set()
    while True:
        kept = {module: [site for site in here if site.name not in left_out] for module, here in sites.items()}
        kept = {module: here for module, here in kept.items() if here}
        totals = {site.name: new_total(problem.parameters[site.name]) for here in kept.values() for site in here}
        problem.shared.clear()
        capture = Capture(kept, totals, shared=problem.shared, folded=True)
        capture.learning = True
        try:
            with capture:
                capture.begin(rows.size)
                for vector, last in problem.passes(rows):
                    capture.backward(vector, last=last)
        except RuntimeError:
            repeated = {site.name for module in problem.shared for site in kept.get(module, [])}
            if not repeated:
                raise
            left_out |= repeated
        else:
            capture.refused.update(dict.fromkeys(left_out, "the model cannot use its output repeated over the batch"))
            return capture, totals


def _errors(
    dtype: torch.dtype, left: Mapping[str, Tensor], peak: Mapping[str, float], last: Mapping[str, Tensor]
) -> dict[str, float]:
    floor = FLOOR[dtype] * max(peak.values(), default=0.0)
    errors = {}
    for name, total in left.items():
        magnitude = total.abs().sqrt_().mul_(total.sign())
        if name in last:
            magnitude.sub_(last[name].abs())
        gap = float(magnitude.abs().max()) if total.numel() else 0.0
        scale = max(peak[name], floor)
        errors[name] = gap / scale if scale > 0 else (0.0 if gap == 0 else math.inf)
    return errors


def _rule_names(sites: Mapping[nn.Module, Sequence[Site]]) -> dict[str, str]:
    names: dict[str, dict[str, None]] = {}
    for here in sites.values():
        for site in here:
            names.setdefault(site.name, {})[rule_name(site.rule)] = None
    return {name: " + ".join(rules) for name, rules in names.items()}


def _no_rule(problem: Problem, name: str) -> str:
    parameter = problem.parameters[name]
    owners = {
        type(module).__name__
        for module in problem.model.modules()
        if any(own is parameter for own in module._parameters.values())
    }
    return f"no rule for {name.rpartition('.')[2]!r} of {', '.join(sorted(owners))}"
