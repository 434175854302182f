"""Collects the diagonal Fisher batch by batch: ``update`` adds, ``take`` hands over the sums."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from commonweight.base.choices import FISHER_TYPES, FisherType
from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.names import some
from commonweight.diagonal_fisher.accumulator import add_square, exact_trace, new_total
from commonweight.diagonal_fisher.agreement import Agreement
from commonweight.diagonal_fisher.capture import Capture
from commonweight.diagonal_fisher.first_call import CENSUS, first_call
from commonweight.diagonal_fisher.guard import check_measurable, untouched
from commonweight.diagonal_fisher.losses import choose_likelihood
from commonweight.diagonal_fisher.problem import ALL, BESIDE_SUMS, Problem
from commonweight.diagonal_fisher.row_digest import row_digests
from commonweight.diagonal_fisher.sharded import UNSHARDED, check_alike, is_sharded, parameters_in_use, reshard
from commonweight.diagonal_fisher.sites import CallShapes
from commonweight.diagonal_fisher.verification import Route, all_generic, verified_routes
from commonweight.footprints.footprint import Spread, is_under, layer_of
from commonweight.footprints.slices import Sliceable

if TYPE_CHECKING:
    from types import TracebackType

    from commonweight.base.team import Team
    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.likelihood import CustomLoss, LossFunction

Patterns = str | Sequence[str] | None

LOST = 1e-3
"""Above this share of a trace, squares that became 0 are spoken of."""


@dataclass
class Sums:
    """Sums over ``count`` examples: they add over batches, folds and processes."""

    count: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Sum over examples of the squared gradients."""

    spread: dict[str, Spread] = field(default_factory=dict)
    rows: list[Tensor] = field(default_factory=list)
    """Digests of every example's content, int64, a batch each."""

    source_rows: list[Tensor] | None = field(default_factory=list)
    """The source rows of every example, int64, a batch each; None where some are only running numbers."""

    def add(self, more: Sums) -> None:
        """Add the sums over other examples; they stay as they are."""
        for name, tensor in more.tensors.items():
            if name in self.tensors:
                self.tensors[name].add_(tensor)
            else:
                self.tensors[name] = tensor.clone()
        self.count += more.count
        for layer, spread in more.spread.items():
            self.spread[layer] = self.spread.get(layer, Spread(0.0, 0.0)) + spread
        self.rows += more.rows
        if self.source_rows is None or more.source_rows is None:
            self.source_rows = None
        else:
            self.source_rows += more.source_rows

    def used_up(self) -> dict[str, Tensor]:
        """Turn the sums into means, in place, and hand them over."""
        tensors = {}
        for name in list(self.tensors):
            tensors[name] = self.tensors.pop(name).div_(self.count).contiguous()
        return tensors


class Means(Sliceable):
    """The means of sums that go on growing, each made when it is asked for."""

    def __init__(self, sums: Sums) -> None:
        self._tensors, self._count = sums.tensors, sums.count

    def __getitem__(self, name: str) -> Tensor:
        return (self._tensors[name] / self._count).contiguous()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Make a slice of one mean along its first dimension."""
        return self._tensors[name][start:stop] / self._count

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape."""
        return tuple(self._tensors[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class FisherCollector:
    """Adds up squared per-example gradients; use as a context manager, the model is frozen inside.

    The arguments are those of :func:`commonweight.fisher`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fisher_type: FisherType = "empirical",
        loss: str | LossFunction | CustomLoss | None = None,
        include: Patterns = None,
        exclude: Patterns = None,
        seed: int = 0,
        samples: int = 1,
    ) -> None:
        if fisher_type not in FISHER_TYPES:
            expected = f"one of {', '.join(FISHER_TYPES)}"
            raise UsageError(f"{{argument}} must be {expected}, got {fisher_type!r}", argument="fisher_type")
        if samples < 1:
            raise UsageError(f"{{argument}} must be at least 1, got {samples}", argument="samples")
        self.model = check_measurable(model)
        self.parameters = choose_parameters(self.model, include, exclude)
        self.include = _listed(include)
        self.exclude = _listed(exclude)
        self.is_sharded = is_sharded(self.model)
        self._in_use = parameters_in_use(self.model)
        self._trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.routes: dict[str, Route] = {}
        self.used: set[str] = set()
        self.trainable = len(self._trainable)
        self.problem: Problem | None = None
        self._fisher_type = fisher_type
        self._loss = loss
        self._seed = seed
        self._samples = samples
        self._waiting: list[Batch] = []
        self._largest = 0
        self._device = next(iter(self.parameters.values())).device
        self._capture: Capture | None = None
        self._sums = Sums()
        self._kept: dict[str, Tensor] = {}
        """Per parameter measured one example at a time: its trace, and the same without squares that became 0."""

    def __enter__(self) -> Self:
        self._modes = ExitStack()
        for mode in (torch.inference_mode(False), torch.enable_grad(), untouched(self.model)):
            self._modes.enter_context(mode)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._modes.close()
        if self.is_sharded:
            reshard(self.model)

    def choose_routes(self, batches: Sequence[Batch]) -> dict[str, Route]:
        """Decide, on real rows, which route covers which parameter."""
        batches = [batch.to(self._device) for batch in batches]
        self._largest = max(batch.size for batch in batches)
        self._capture = None
        previous = self.problem
        problem = Problem(
            self.model,
            self.parameters,
            self._in_use,
            self._trainable,
            choose_likelihood(self._loss, self.model, batches[0]),
            self._fisher_type,
            self._seed,
            self._samples,
            alone=previous is None or previous.alone,
            shapes=CallShapes() if previous is None else previous.shapes,
            agreement=Agreement() if previous is None else previous.agreement,
            is_sharded=self.is_sharded,
        )
        problem, differentiates, first = first_call(problem, batches[0], new=previous is None)
        if differentiates:
            routes, self.problem = all_generic(problem, batches, first)
        else:
            routes, self.problem = verified_routes(problem, batches, first, ALL if previous is None else BESIDE_SUMS)
        self.routes = routes | {name: route for name, route in self.routes.items() if route.route == "generic"}
        for batch in batches:
            self.problem.shapes.uneven.update(batch.uneven)
        self._check_sharded({name: route.reason for name, route in routes.items() if route.route != "rule"})
        return self.routes

    def update(self, batch: Batch) -> None:
        """Add one batch; the first ones wait until there are enough rows to choose routes on."""
        if self.problem is not None:
            if self._must_look_again(batch):
                self.choose_routes([batch])
            self._measure(self.problem, batch)
            return
        self._waiting.append(batch)
        if self._is_enough():
            self._start()

    def settled(self, batches: Iterator[Batch], team: Team) -> Iterator[Batch]:
        """Give batches, the first ones after routes were chosen on them in all processes: for a sharded model."""
        if self.problem is None:
            for batch in batches:
                self._waiting.append(batch)
                if self._is_enough():
                    break
            check_alike(team, [row_digests(batch).tolist() for batch in self._waiting])
            if self._waiting:
                yield from self._chosen()
        yield from batches

    def step(self, batches: Sequence[Batch], rank: int) -> None:
        """Measure one of the batches that processes run at once, or where there are fewer run along; a collective."""
        for batch in batches:
            if self._must_look_again(batch):
                self.choose_routes([batch])
        if self.problem is None:
            raise RuntimeError("the first batches were not given by settled()")
        if rank < len(batches):
            self._measure(self.problem, batches[rank])
            return
        batch = batches[0].to(self._device)
        with Capture(self.problem.sites, self._in_use, {}, self.problem.shapes, learning=False) as capture:
            capture.begin(batch.size, batch.signature)
            for vector, last in self.problem.passes(batch):
                capture.backward(vector, last=last)

    def take(self) -> Sums:
        """Hand over what was added since the last call, and start again from zero."""
        if self._waiting:
            self._start()
        sums, self._sums, self._capture = self._sums, Sums(), None
        return sums

    def lost(self) -> str | None:
        """Say of which parameters squares became 0, because no number is so small; None where nothing was lost."""
        # A rule by which a parameter lost everything disagreed with single-example passes, and was not used.
        pairs = {name: pair.tolist() for name, pair in self._kept.items()}
        shares = {name: 1 - kept / exact for name, (kept, exact) in pairs.items() if exact > 0}
        lost = {name: share for name, share in shares.items() if share > LOST}
        if not lost:
            return None
        return (
            f"squares of gradients below 1e-45 are 0 in float32: of {some(list(lost))} up to {max(lost.values()):.0%} "
            "of the trace is lost; measure the model in float64, or scale its inputs"
        )

    def meet(self, team: Team) -> None:
        """Learn from the other processes of a team how they measured, and what they saw; a collective."""
        if team.size == 1:
            return
        agreement = self.problem.agreement if self.problem is not None else Agreement()
        for routes, used, theirs in team.gather((self.routes, self.used, agreement)):
            self.used |= used
            for name, route in routes.items():
                here = self.routes.setdefault(name, route)
                if route.route == "generic" or (here.route != "generic" and not here.error >= route.error):
                    self.routes[name] = route
            agreement.right |= theirs.right
            agreement.classes = max(agreement.classes, theirs.classes)

    def _names(self, route: str) -> list[str]:
        return [name for name, found in self.routes.items() if found.route == route]

    def _must_look_again(self, batch: Batch) -> bool:
        """Whether rules were compared on less than this batch can show."""
        # One example per batch cannot show a rule that mixes examples; rows picked by a mask may have looked regular
        # while all examples were of one length; and where rows of several examples were folded into one dimension,
        # examples of other shapes may be folded in another way.
        if self.problem is None or batch.size == 1:
            return False
        shapes = self.problem.shapes
        other_shapes = bool(shapes.folded) and batch.signature not in shapes.signatures
        return self._largest == 1 or other_shapes or not batch.uneven <= shapes.uneven

    def _is_enough(self) -> bool:
        return sum(held.size for held in self._waiting) >= CENSUS

    def _start(self) -> None:
        for batch in self._chosen():
            self.update(batch)

    def _chosen(self) -> list[Batch]:
        """Choose routes on the batches that waited, and hand them over."""
        shared = frozenset().union(*(batch.shared for batch in self._waiting))
        waiting, self._waiting = [replace(batch, shared=shared) for batch in self._waiting], []
        self.choose_routes(waiting)
        return waiting

    def _check_sharded(self, without_rule: Mapping[str, str]) -> None:
        """Refuse parameters of a sharded model that no rule measures."""
        if self.is_sharded and without_rule:
            names = list(without_rule)
            raise UsageError(
                f"the model is sharded by fully_shard, so every parameter needs a rule, and none covers {some(names)} "
                f"({without_rule[names[0]]}): leave out with {{exclude}}, {UNSHARDED}",
                exclude=None,
            )

    def _measure(self, problem: Problem, batch: Batch) -> None:
        sums = self._sums
        sums.rows.append(row_digests(batch))
        if not batch.numbered:
            sums.source_rows = None
        elif sums.source_rows is not None:
            sums.source_rows.append(torch.tensor(batch.source_rows))
        batch = batch.to(self._device)
        if not sums.tensors:
            sums.tensors = {name: new_total(parameter) for name, parameter in self.parameters.items()}
        traces: dict[str, Tensor] = {}
        generic, ruled, dormant = (self._names(route) for route in ("generic", "rule", "dormant"))
        losses: list[list[float]] | None = None
        if ruled:
            traces, moved, losses = self._measure_by_rule(problem, batch, ruled, dormant)
            self._check_sharded(moved)
            for name, reason in moved.items():
                self.routes[name] = Route("generic", self.routes[name].rule, reason=reason)
            if moved:
                # Nobody has seen whether these have the same gradients when all others are frozen.
                problem = self.problem = replace(problem, alone=False)
            generic += moved
        else:
            generic += dormant
        if generic:
            traces |= self._measure_one_by_one(problem, batch, generic, losses)
        sums.count += batch.size
        self._add_traces(traces, batch)

    def _measure_by_rule(
        self, problem: Problem, batch: Batch, ruled: list[str], dormant: list[str]
    ) -> tuple[dict[str, Tensor], dict[str, str], list[list[float]]]:
        """Measure by hooks; give traces, parameters that woke up or were refused (none was added), and losses."""
        if self._capture is None:
            sites = {name: problem.sites[name] for name in ruled if name in problem.sites}
            self._capture = Capture(sites, self._in_use, self._sums.tensors, problem.shapes, learning=False)
        watched = {name: self.parameters[name] for name in dormant}
        with self._capture as capture:
            try:
                for parameter in watched.values():
                    parameter.requires_grad_(True)
                capture.begin(batch.size, batch.signature)
                losses = []
                for vector, last in problem.passes(batch):
                    losses.append(vector.detach().tolist())
                    capture.backward(vector, last=last)
                woke = [name for name, parameter in watched.items() if parameter.grad is not None]
            finally:
                for parameter in watched.values():
                    parameter.requires_grad_(False)
                    parameter.grad = None
        self.used |= capture.fired
        moved = dict.fromkeys(woke, "first used by a later batch than the rows looked at") | capture.refused
        if capture.refused:
            self._capture = None
        return dict(capture.traces), moved, losses

    def _measure_one_by_one(
        self, problem: Problem, batch: Batch, names: list[str], losses: list[list[float]] | None
    ) -> dict[str, Tensor]:
        traces = {name: torch.zeros(batch.size, dtype=torch.float64, device=self._device) for name in names}
        for i in range(batch.size):
            expected = None if losses is None else [of_pass[i] for of_pass in losses]
            try:
                for gradients in problem.single_gradients(batch.select([i]), names, expected=expected):
                    while gradients:  # each goes at once: one set of gradients at a time
                        name, gradient = gradients.popitem()
                        trace = add_square(self._sums.tensors[name], gradient)
                        traces[name][i] += trace
                        self._kept[name] = self._kept.get(name, 0) + torch.stack([trace, exact_trace(gradient, trace)])
                        self.used.add(name)
                        del gradient
            except RuntimeError as error:
                if losses is None or isinstance(error, MeasurementError):
                    raise
                raise MeasurementError(
                    f"the model ran on a batch and not on example {batch.source_rows[i]} alone (a tensor shared by the "
                    f"batch that is as long as the batch?): {error}"
                ) from error
        return traces

    def _add_traces(self, traces: dict[str, Tensor], batch: Batch) -> None:
        if not traces:
            self._sums.spread.setdefault("", Spread(0.0, 0.0))
            return
        names = list(traces)
        table = torch.stack([traces[name].to(self._device) for name in names]).double()
        if not table.isfinite().all():
            which, row = (~table.isfinite()).nonzero()[0].tolist()
            raise MeasurementError(
                f"the gradient of {names[which]} is not finite for example {batch.source_rows[row]}: "
                "check the weights and this example, or measure in float32"
            )
        by_layer: dict[str, Tensor] = {"": table.sum(0)}
        for name, values in zip(names, table, strict=True):
            layer = layer_of(name)
            by_layer[layer] = by_layer[layer] + values if layer in by_layer else values
        sums = torch.stack(list(by_layer.values())).cpu()
        totals, squares = sums.sum(1).tolist(), sums.square().sum(1).tolist()
        for layer, total, square in zip(by_layer, totals, squares, strict=True):
            self._sums.spread[layer] = self._sums.spread.get(layer, Spread(0.0, 0.0)) + Spread(total, square)


def choose_parameters(model: nn.Module, include: Patterns, exclude: Patterns) -> dict[str, nn.Parameter]:
    """Select the parameters to measure: those that require a gradient, and match the patterns."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise UsageError("no parameter of the model requires a gradient: unfreeze those that are to be measured")
    chosen = set(trainable) if include is None else _matching(trainable, include, "include")
    chosen -= _matching(trainable, exclude, "exclude")
    if not chosen:
        raise UsageError("{include} and {exclude} leave no parameter to measure", include=None, exclude=None)
    for name in trainable:
        if name in chosen and trainable[name].is_complex():
            raise UsageError(
                f"parameter {name} is complex: freeze it or leave it out with {{exclude}}, only real ones are measured",
                exclude=None,
            )
    return {name: p for name, p in trainable.items() if name in chosen}


def _listed(patterns: Patterns) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _matching(parameters: dict[str, nn.Parameter], patterns: Patterns, argument: str) -> set[str]:
    found: set[str] = set()
    for pattern in _listed(patterns) or []:
        here = {name for name in parameters if fnmatch.fnmatchcase(name, pattern) or is_under(name, pattern)}
        if not here:
            names = list(parameters)
            raise UsageError(
                f"{{argument}}: {pattern!r} matches no trainable parameter; names look like {', '.join(names[:3])}",
                argument=argument,
            )
        found |= here
    return found
