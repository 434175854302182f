"""What can be read of a supermask network: masks, scores, statistics, frozen weights."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from commonweight.nn.masks import flow, passes
from commonweight.nn.masks.bits import Bits
from commonweight.nn.masks.tasks import TaskNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from commonweight.nn.masks.norm import Statistics


class MaskedNetwork(TaskNetwork, abc.ABC):
    """A network with tasks whose masks and statistics can be read; everything that is given out is a copy."""

    @property
    def masked(self) -> tuple[str, ...]:
        """Names of the masked weights, in model order."""
        return tuple(self._parts.masks)

    @property
    def unmasked(self) -> Mapping[str, str]:
        """Every other parameter -> why it is not masked; tasks share it, or start from it where they train it."""
        return dict(self._parts.unmasked)

    def bits(self, task: str, name: str) -> Bits:
        """Give a task's mask, packed.

        Args:
            task: The task's name.
            name: A masked weight's name.

        Returns:
            A copy.

        Raises:
            UsageError: If there is no such task or weight.
        """
        bits = self._mask(name).bits(self._index(task))
        return Bits(bits.packed.clone(), bits.shape)

    def mask(self, task: str, name: str) -> Tensor:
        """Give a task's mask.

        Args:
            task: The task's name.
            name: A masked weight's name.

        Returns:
            Boolean, of the weight's shape.

        Raises:
            UsageError: If there is no such task or weight.
        """
        return self._mask(name).bits(self._index(task)).unpack()

    def start_bits(self, task: str, name: str) -> Bits:
        """Draw the mask of a task's score start again, from the seed.

        Args:
            task: The task's name.
            name: A masked weight's name.

        Returns:
            The mask before any training, and before :meth:`start_from`.

        Raises:
            UsageError: If there is no such task or weight.
        """
        return self._mask(name).start_bits(self._index(task), self._parts.weight(name))

    def scores(self, task: str, name: str) -> Tensor | None:
        """Give a task's scores.

        Args:
            task: The task's name.
            name: A masked weight's name.

        Returns:
            A copy, without a prior task's influence; None if they were dropped.

        Raises:
            UsageError: If there is no such task or weight.
        """
        scores = self._mask(name).scores(self._index(task))
        return None if scores is None else scores.detach().clone()

    def weight(self, name: str) -> Tensor:
        """Give a frozen weight, whole.

        Args:
            name: A masked weight's name.

        Returns:
            A copy.

        Raises:
            UsageError: If there is no such masked weight.
        """
        self._mask(name)
        return self._parts.weight(name).detach().clone()

    def weights_digest(self) -> str:
        """Hash the frozen parameters, masked or not: their original names, shapes, types and bytes.

        Returns:
            SHA-256, in hexadecimal; the same before and after any training.
        """
        return self._parts.digest()

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the batch norms, in model order."""
        return tuple(self._parts.norms)

    def statistics(self, task: str) -> Mapping[str, Statistics]:
        """Give a task's batch-norm statistics.

        Args:
            task: Its name.

        Returns:
            Copies, by the names in :attr:`norms`.

        Raises:
            UsageError: If there is no such task.
        """
        index = self._index(task)
        return {name: norm.statistics(index) for name, norm in self._parts.norms.items()}

    def probe(self, task: str, batches: Iterable[Any]) -> Mapping[str, Statistics]:
        """Measure what new data look like through a task's mask, normalised with the task's stored statistics.

        Args:
            task: The task's name.
            batches: As in :meth:`reestimate`; gone through once.

        Returns:
            Mean and variance of what each batch norm receives; nothing is stored.

        Raises:
            UsageError: If there is no such task.
            MeasurementError: If a batch norm gets fewer than two values per unit, or none that are finite.
        """
        with self.on(task), passes.evaluating(self):
            return passes.watch(self, self._parts.norms, batches)

    def norm_behind(self, inputs: Any) -> Mapping[str, str | None]:
        """Find the batch norm behind each masked weight: the first to receive its output, no masked layer between.

        Args:
            inputs: One batch, as in :meth:`reestimate`; its values do not matter, and no task needs to be selected.

        Returns:
            Masked weight -> batch norm; None for the output layer and other weights that have none behind them.
        """
        layers = {
            name: [self.model.get_submodule(layer) for layer in users] for name, users in self._parts.layers.items()
        }
        self._selection.unmasked = True
        try:
            with passes.evaluating(self):
                return flow.norms_behind(self, layers, self._parts.norms, inputs)
        finally:
            self._selection.unmasked = False
