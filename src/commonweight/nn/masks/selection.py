"""Which task a network is on: one object that all its layers look at, so that no two of them can disagree."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


@dataclass(frozen=True)
class Mixture:
    """A superposition of tasks."""

    tasks: tuple[int, ...]
    weights: Tensor
    """One weight per task; shape ``[k]``, possibly with a gradient."""

    counts: float | None
    """As how many values its statistics count among those of the inputs; None: they stand alone."""


@dataclass
class Selection:
    """What the next forward pass uses."""

    task: int | None = None
    mixture: Mixture | None = None
    unmasked: bool = False
    """Whole weights and the model's own statistics: to look at the structure, not at numbers."""

    finished: set[int] = field(default_factory=set)
    made: dict[tuple[nn.Module, bool], Tensor] | None = None
    """Masked weights of the call that is on, with a gradient and without; None between calls."""

    @contextlib.contextmanager
    def one_call(self) -> Iterator[None]:
        """Let every weight be masked once until the end, however often it is used.

        Yields:
            Nothing.
        """
        former, self.made = self.made, {}
        try:
            yield
        finally:
            self.made = former

    def current(self) -> int:
        """Give the task that is selected.

        Returns:
            Its index.

        Raises:
            UsageError: If none is.
        """
        if self.task is None:
            raise UsageError(
                "no task is selected: expected net.switch(task), or `with net.on(task):`, before the network is called"
            )
        return self.task
