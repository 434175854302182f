"""Put a set of weights onto the initialisation, or back to it, in place; and take that back, bit for bit."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from commonweight.base.errors import NotComparableError
from commonweight.footprints.of_change import shared_names, weights_of
from commonweight.interventions.sets import complement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from commonweight.footprints.packed import PackedMasks


@dataclass(frozen=True)
class Swappable:
    """A model beside its initialisation, whose weights can change places.

    Two copies of the shared weights are in memory, the model's own and the initialisation's. An intervention exchanges
    entries between them, and exchanges them again to take it back.
    """

    model: nn.Module
    start: Mapping[str, Tensor]
    """The initialisation of every shared parameter, in the type and on the device of the model's."""

    @classmethod
    def of(
        cls, model: nn.Module, initialisation: nn.Module | str | Path, parameters: Sequence[str] | None = None
    ) -> Swappable:
        """Read the initialisation of a model.

        Args:
            model: The model.
            initialisation: A module or a checkpoint folder, as for :func:`commonweight.change_footprint`.
            parameters: The parameters that may be exchanged; None for all that share name and shape.

        Returns:
            Both.

        Raises:
            NotComparableError: If one of the parameters is not shared.
        """
        start = weights_of("initialisation", initialisation)
        own = dict(model.named_parameters())
        shared = shared_names(own, start)
        names = list(shared) if parameters is None else list(parameters)
        if lacking := [name for name in names if name not in shared]:
            raise NotComparableError(f"{lacking[0]!r} has no initialisation of its name and shape; leave it out")
        return cls(model, {name: start[shared[name]].detach().to(own[name], copy=True) for name in names})

    @contextlib.contextmanager
    def reset(self, chosen: PackedMasks) -> Iterator[nn.Module]:
        """Set the weights of a set back to the initialisation.

        Args:
            chosen: The set; parameters it lacks stay.

        Yields:
            The model; on leaving, also by an error, every weight is bit for bit what it was.

        Example:
            >>> from copy import deepcopy
            >>> from commonweight.footprints.packed import PackedMasks
            >>> start = torch.nn.Linear(2, 1, bias=False)
            >>> model = deepcopy(start)
            >>> _ = start.weight.data.fill_(0.0), model.weight.data.fill_(1.0)
            >>> pair = Swappable.of(model, start)
            >>> with pair.reset(PackedMasks.of({"weight": torch.tensor([[True, False]])})):
            ...     model.weight.tolist()
            [[0.0, 1.0]]
            >>> model.weight.tolist()
            [[1.0, 1.0]]
        """
        done: list[str] = []
        try:
            for name in chosen:
                done.append(name)
                self._exchange(name, chosen)
            yield self.model
        finally:
            for name in done:
                self._exchange(name, chosen)

    @contextlib.contextmanager
    def graft(self, chosen: PackedMasks) -> Iterator[nn.Module]:
        """Put the weights of a set onto the initialisation: all other shared weights are reset.

        Args:
            chosen: The set; it names every shared parameter.

        Yields:
            The model, as for :meth:`reset`.
        """
        with self.reset(complement(chosen)) as model:
            yield model

    @torch.no_grad()
    def _exchange(self, name: str, chosen: PackedMasks) -> None:
        weight, start = self.model.get_parameter(name), self.start[name]
        mask = chosen[name].to(weight.device)
        mine, other = torch.where(mask, start, weight), torch.where(mask, weight, start)
        weight.copy_(mine)
        start.copy_(other)
