"""Parameters taken a portion at a time, so that only a part of their gradients and totals is in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import Tensor

    from commonweight.footprint.batch import Batch
    from commonweight.footprint.problem import Problem

ALL = 1.0
"""Share of the parameters compared at a time before anything is measured: their totals and gradients, two copies."""

BESIDE_SUMS = 0.4
"""The same once sums of earlier batches take a copy of their own: three copies would be too many."""


def portions(problem: Problem, names: Collection[str], share: float) -> list[list[str]]:
    """Split parameters into few portions.

    Args:
        problem: What is measured.
        names: Some of its parameters.
        share: The most of all its parameters that one portion may hold; a larger parameter is a portion alone.

    Returns:
        Every name in one portion; all of them in a single one where ``share`` allows it.
    """
    size = {name: parameter.numel() for name, parameter in problem.parameters.items()}
    room = share * sum(size.values())
    found: list[list[str]] = []
    filled: list[int] = []
    for name in sorted(names, key=size.__getitem__, reverse=True):
        at = next((k for k, held in enumerate(filled) if held + size[name] <= room), len(found))
        if at == len(found):
            found.append([])
            filled.append(0)
        found[at].append(name)
        filled[at] += size[name]
    return found


def single_gradients_of(
    problem: Problem, example: Batch, names: Collection[str], *, together: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Differentiate one example in the ordinary way and keep a portion of the gradients.

    Args:
        problem: What is measured, with a label rule of one pass.
        example: A batch of one example.
        names: The parameters whose gradients are wanted.
        together: Differentiate by these while all others are frozen; None leaves all trainable ones free.

    Returns:
        The gradients of the wanted parameters that were used.
    """
    free = names if together is None else together
    with only_gradients_of(problem, names):
        (found,) = problem.single_gradients(example, list(free), alone=together is not None)
    return found


@contextmanager
def only_gradients_of(problem: Problem, names: Collection[str]) -> Iterator[None]:
    """Let go of the gradients of all other parameters as soon as autograd has made them.

    Args:
        problem: What is measured.
        names: The parameters whose gradients are kept.

    Yields:
        Nothing; the hooks of the user are back afterwards.
    """
    kept = {id(problem.parameters[name]) for name in names}
    others = [(p, p._post_accumulate_grad_hooks) for p in problem.trainable if id(p) not in kept]
    ours = {0: _let_go}
    try:
        for parameter, _ in others:
            parameter._post_accumulate_grad_hooks = ours
        yield
    finally:
        ours.clear()  # autograd holds on to it where there were none before
        for parameter, hooks in others:
            parameter._post_accumulate_grad_hooks = hooks


def _let_go(parameter: Tensor) -> None:
    parameter.grad = None
