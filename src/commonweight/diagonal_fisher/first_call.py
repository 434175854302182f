"""The first calls of a model: how it takes its inputs, and whether an example is measured the same twice and alone.

Per-example gradients do not exist where the loss of an example depends on its neighbours or on chance, so both are
looked at before anything is measured.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from commonweight.base.errors import CommonweightError, MeasurementError, UsageError
from commonweight.diagonal_fisher.batch import arguments_of, leaves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.problem import Problem

CENSUS = 16
"""Examples run alone, without gradients, to see that losses and row counts do not depend on the neighbours."""


@dataclass(frozen=True)
class FirstPass:
    """Some rows of a batch after the model ran on them, and one number for each that tells what it gave."""

    rows: Batch
    fingerprint: Tensor

    @classmethod
    def of(cls, problem: Problem, batch: Batch) -> FirstPass:
        """Run the model on some rows of a batch."""
        rows = batch.select(spread_positions(batch.size, CENSUS))
        return cls(rows, problem.fingerprint(rows).detach())


def first_call(problem: Problem, batch: Batch, *, new: bool) -> tuple[Problem, bool, FirstPass]:
    """Find out how the model can be called."""
    # Inputs reach ``forward`` as the loader gave them; a tuple or list that it cannot take whole becomes its positional
    # arguments.
    sequence = isinstance(batch.inputs, (tuple, list))
    positions = spread_positions(batch.size, CENSUS)
    errors: list[Exception] = []
    for spread, free in itertools.product((False, True) if sequence else (False,), (False, True)):
        tried = replace(problem, spread=spread)
        rows = batch.select(positions)  # anew for every call: models write into their inputs
        try:
            with tried.differentiating((), alone=not free):
                outputs = tried.outputs(rows)
        except Exception as error:  # whatever a model may raise
            if isinstance(error, (CommonweightError, torch.OutOfMemoryError)):
                raise
            errors.append(error)
            continue
        doubt = problem.likelihood.doubt(outputs, rows) if new else ""
        if doubt:
            warnings.warn(doubt, stacklevel=2)
        return tried, free, FirstPass(rows, tried.probe().fingerprint_of(outputs, rows).detach())
    if sequence or isinstance(errors[0], TypeError):
        said = f"neither whole ({errors[0]}) nor as its arguments ({errors[-1]})" if sequence else f"({errors[0]})"
        takes = ", ".join(arguments_of(problem.model) or ["what it wants"])
        raise UsageError(
            f"{type(problem.model).__name__}.forward takes {takes}, and does not run on the inputs that the loader "
            f"gives, {_said(batch.inputs)}, {said}; name its arguments in a mapping, such as "
            '{"input": x, "labels": y}'
        ) from errors[0]
    raise errors[0]


def _said(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"the keys {', '.join(map(repr, inputs))}"
    if isinstance(inputs, (tuple, list)):
        return f"a {type(inputs).__name__} of {len(inputs)}"
    return f"a {type(inputs).__name__}"


def check_first(problem: Problem, batches: Sequence[Batch], first: FirstPass) -> set[nn.Module]:
    """Check batches with ``check_repeatable`` until ``CENSUS`` rows were looked at; the first one has been run."""
    uneven = check_repeatable(problem, first)
    looked_at = batches[0].size
    for batch in batches[1:]:
        if looked_at < CENSUS:
            uneven |= check_repeatable(problem, FirstPass.of(problem, batch))
            looked_at += batch.size
    return uneven


def check_repeatable(problem: Problem, first: FirstPass) -> set[nn.Module]:
    """Every row must be given alone what it was given among the others."""
    modules = list(problem.model.modules())
    shapes: list[dict[nn.Module, list[torch.Size]]] = []
    found = []
    for i in range(first.rows.size):
        with _input_shapes(modules) as seen:
            found.append(_alone(problem, first.rows.select([i])))
        shapes.append(seen)
    alone = torch.cat(found)
    if _changed(problem, first.fingerprint, alone).any():
        _refuse_change(problem, first.rows, alone)
    return {module for module in modules if any(seen.get(module) != shapes[0].get(module) for seen in shapes)}


def _changed(problem: Problem, one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs() > problem.slack * (1 + one.abs())


def _refuse_change(problem: Problem, rows: Batch, alone: Tensor) -> None:
    """Say why rows differ: by chance, or by their neighbours; a model may also settle in its first call."""
    first, second = problem.fingerprint(rows).detach(), problem.fingerprint(rows).detach()
    for other, what in (
        (
            second,
            "two passes over the same rows give different losses: a module stays random in eval mode "
            "(dropout applied with training=True, a sampled path); make it deterministic first",
        ),
        (
            alone,
            "an example's loss changes with the other examples of its batch: a module mixes examples (batch norm "
            "without running statistics, in-batch negatives), padding is not masked, or a tensor shared by the batch "
            "happens to be as long as the batch; per-example gradients do not exist",
        ),
    ):
        bad = _changed(problem, first, other)
        if bad.any():
            i = int(bad.nonzero()[0])
            if other is alone and _same_outputs(problem, rows, i):
                what = (
                    "a loss of your own gives an example another value among the other examples of its batch, though "
                    "the model gives it the same outputs: it is averaged over the batch or divided by its size, or it "
                    "compares examples (outputs [batch, 1] with labels [batch], in-batch negatives); return each "
                    "example's own negative log-likelihood (reduction='none')"
                )
            raise MeasurementError(
                f"{what} (example {rows.source_rows[i]}: {float(first[i]):.6g} and {float(other[i]):.6g})"
            )


def _same_outputs(problem: Problem, rows: Batch, i: int) -> bool:
    """Whether the model gives one row what it gives it among the others."""
    among, alone = (dict(leaves_of(problem.outputs(rows.select(part)))) for part in (range(rows.size), [i]))
    pairs = [
        (found[i : i + 1].detach(), alone[path].detach())
        for path, found in among.items()
        if isinstance(found, Tensor) and found.is_floating_point() and found.dim() and len(found) == rows.size
    ]
    return bool(pairs) and all(
        a.shape == b.shape and torch.allclose(a, b, problem.slack, problem.slack) for a, b in pairs
    )


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


def spread_positions(size: int, most: int) -> list[int]:
    """Choose positions of a batch, first and last among them."""
    if size <= most:
        return list(range(size))
    return sorted({round(k * (size - 1) / (most - 1)) for k in range(most)})
