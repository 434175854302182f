"""Which task a network is on: one object that all its layers look at, so that no two of them can disagree."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


@dataclass(frozen=True)
class Mixture:
    """A superposition of tasks."""

    tasks: tuple[int, ...]
    weights: Tensor
    """One weight per task; shape ``[k]``, possibly with a gradient."""

    counts: float | None
    """As how many values its statistics count among those of the inputs; None: they stand alone."""


def check_mixture(weights: Mapping[str, Tensor], counts: float | None) -> None:
    """Check what a user asked to superpose."""
    for task, weight in weights.items():
        if not isinstance(weight, Tensor) or weight.dim() or not weight.is_floating_point():
            raise UsageError(f"the weight of {task!r} must be a floating-point scalar tensor, got {weight!r}")
        if not weight.detach().isfinite():
            raise UsageError(f"the weight of {task!r} must be finite, got {weight.item()}")
    if not weights:
        raise UsageError("a superposition needs at least one task, got none")
    if counts is not None and not 0 < counts < float("inf"):
        raise UsageError(f"mixture_counts must be a number over 0, or None, got {counts!r}")


@dataclass
class Selection:
    """What the next forward pass uses."""

    names: list[str] = field(default_factory=list)
    """Of all tasks, by index."""

    task: int | None = None
    mixture: Mixture | None = None
    unmasked: bool = False
    """Whole weights and the model's own statistics: to look at the structure, not at numbers."""

    finished: set[int] = field(default_factory=set)
    made: dict[tuple[nn.Module, bool], Tensor] | None = None
    """Masked weights of the call that is on, with a gradient and without; None between calls."""

    @contextlib.contextmanager
    def one_call(self) -> Iterator[dict[tuple[nn.Module, bool], Tensor]]:
        """Let every weight be masked once until the end, however often it is used."""
        former, self.made = self.made, {}
        try:
            yield self.made
        finally:
            self.made = former

    def current(self) -> int:
        """Give the task that is selected."""
        if self.task is None:
            raise UsageError(
                "no task is selected: expected net.switch(task), or `with net.on(task):`, before the network is "
                "called, and until its backward pass is over"
            )
        return self.task

    def watch(self, parameter: nn.Parameter, task: int) -> None:
        """Refuse gradients that come to a task's parameter while it is not on: PyTorch would drop them unsaid."""
        if parameter._backward_hooks is None:  # a deep copy has none, whatever the original has
            parameter.register_hook(lambda _gradient: self._check_backward(task, finished=False))

    def tie(self, outputs: Any) -> None:
        """Refuse a backward pass from here once something else is selected: it runs parts of the network again."""
        task, mixture, finished = self.task, self.mixture, self.task in self.finished

        def check(_gradients: tuple[Tensor, ...]) -> None:
            if self.mixture is not mixture:
                raise UsageError(
                    "checkpointing runs parts of the network again, and other masks are on than in the forward pass: "
                    "call backward() inside the same `with net.superposed(...):`"
                )
            if mixture is None and task is not None:
                self._check_backward(task, finished=finished)

        for output in tree_leaves(outputs):
            if isinstance(output, Tensor) and output.grad_fn is not None:
                output.grad_fn.register_prehook(check)

    def _check_backward(self, task: int, *, finished: bool) -> None:
        name = self.names[task]
        if not finished and task in self.finished:
            raise UsageError(
                f"a gradient came to task {name!r} after it was finished: expected backward() and the optimiser's step "
                "before net.finish"
            )
        if self.task != task:
            now = "no task" if self.task is None else f"task {self.names[self.task]!r}"
            raise UsageError(
                f"a gradient came to task {name!r} while {now} is selected: it would be lost, or go to another task; "
                f"call backward() where the forward pass is, inside `with net.on({name!r}):` or after "
                f"net.switch({name!r})"
            )
