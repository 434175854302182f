"""The first call of a model: how it takes its inputs, and whether its outputs are what the loss takes them for."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import CommonweightError, UsageError
from commonweight.diagonal_fisher.batch import arguments_of
from commonweight.diagonal_fisher.repeatable import CENSUS, check_first, spread_positions
from commonweight.diagonal_fisher.routes import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.diagonal_fisher.batch import Batch
    from commonweight.diagonal_fisher.problem import Problem


def first_call(problem: Problem, batch: Batch, *, new: bool) -> tuple[Problem, bool]:
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
        return tried, free
    if sequence or isinstance(errors[0], TypeError):
        said = f"neither whole ({errors[0]}) nor as its arguments ({errors[-1]})" if sequence else f"({errors[0]})"
        takes = ", ".join(arguments_of(problem.model) or ["what it wants"])
        raise UsageError(
            f"{type(problem.model).__name__}.forward takes {takes}, and does not run on the inputs that the loader "
            f"gives, {_said(batch.inputs)}, {said}; name its arguments in a mapping, such as "
            '{"input": x, "labels": y}'
        ) from errors[0]
    raise errors[0]


def all_generic(problem: Problem, batches: Sequence[Batch]) -> tuple[dict[str, Route], Problem]:
    """Measure every parameter one example at a time, all of them free, after the checks that need no rule."""
    with problem.differentiating((), alone=False):
        check_first(problem.probe(), batches)
    route = Route("generic", reason="the model differentiates by its parameters inside its own forward pass")
    return dict.fromkeys(problem.parameters, route), replace(problem, alone=False)


def _said(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"the keys {', '.join(map(repr, inputs))}"
    if isinstance(inputs, (tuple, list)):
        return f"a {type(inputs).__name__} of {len(inputs)}"
    return f"a {type(inputs).__name__}"
