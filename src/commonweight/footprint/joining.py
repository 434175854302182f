"""Fishers of disjoint examples joined into the Fisher of all of them: nothing is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from commonweight.errors import UsageError
from commonweight.footprint.footprint import Fold, Footprint, Spread
from commonweight.footprint.reading import StoredTensors

if TYPE_CHECKING:
    from collections.abc import Iterator


def joined(footprints: Sequence[Footprint], metadata: Mapping[str, Any]) -> Footprint:
    r"""Join Fishers of one model on disjoint examples: :math:`F = \sum_i n_i F_i / \sum_i n_i`, fold by fold too.

    Args:
        footprints: At least one; with the same parameters and equally many folds of one fold map.
        metadata: What the whole shall say of itself.

    Returns:
        The Fisher of all examples; its tensors are computed when they are asked for.

    Raises:
        UsageError: If parameters or numbers of folds differ.

    Example:
        >>> from torch import tensor
        >>> one = Footprint("fisher", {"w": tensor([1.0, 0.0])}, count=1)
        >>> three = Footprint("fisher", {"w": tensor([5.0, 4.0])}, count=3)
        >>> joined([one, three], {})["w"]
        tensor([4., 3.])
    """
    first = footprints[0]
    for other in footprints[1:]:
        if other.names != first.names or len(other.folds) != len(first.folds):
            raise UsageError(
                f"expected Fishers of the same {len(first)} parameters with {len(first.folds)} folds, got one of "
                f"{len(other)} with {len(other.folds)}: measure them with the same options"
            )
    spread: dict[str, Spread] = {}
    for each in footprints:
        for layer, found in each.spread.items():
            spread[layer] = spread.get(layer, Spread(0.0, 0.0)) + found
    return Footprint(
        kind="fisher",
        tensors=_Mean([(each.count, each.tensors) for each in footprints]),
        count=sum(each.count for each in footprints),
        metadata=dict(metadata),
        spread=spread,
        folds=tuple(
            Fold(sum(fold.count for fold in folds), _Mean([(fold.count, fold.tensors) for fold in folds]))
            for folds in zip(*(each.folds for each in footprints), strict=True)
        ),
        weight_sample=first.weight_sample,
    )


class _Mean(Mapping[str, Tensor]):
    """Weighted means, each computed when it is asked for, and a slice at a time where that is wanted."""

    def __init__(self, parts: Sequence[tuple[int, Mapping[str, Tensor]]]) -> None:
        total = sum(count for count, _ in parts)
        self._parts = [(count / total, tensors) for count, tensors in parts]

    def __getitem__(self, name: str) -> Tensor:
        return self._mean([tensors[name] for _, tensors in self._parts])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Compute a slice along the first dimension."""
        return self._mean([
            tensors.rows(name, start, stop) if isinstance(tensors, StoredTensors) else tensors[name][start:stop]
            for _, tensors in self._parts
        ])

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a shape without computing anything."""
        tensors = self._parts[0][1]
        return tensors.shape(name) if isinstance(tensors, StoredTensors) else tuple(tensors[name].shape)

    def _mean(self, tensors: Sequence[Tensor]) -> Tensor:
        weights = [weight for weight, _ in self._parts]
        total = tensors[0].double() * weights[0]
        for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
            total.add_(tensor.double(), alpha=weight)
        return total.to(tensors[0].dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0][1])

    def __len__(self) -> int:
        return len(self._parts[0][1])
