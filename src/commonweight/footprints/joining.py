"""Fishers of disjoint examples joined into the Fisher of all of them: nothing is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.footprints.footprint import Fold, Footprint, Spread
from commonweight.footprints.reading import StoredTensors

if TYPE_CHECKING:
    from collections.abc import Iterator


def joined(footprints: Sequence[Footprint], metadata: Mapping[str, Any]) -> Footprint:
    r"""Join Fishers of one model on disjoint examples: :math:`F = \sum_i n_i F_i / \sum_i n_i`, fold by fold too.

    Args:
        footprints: At least one; with the same parameters, of the same shapes, and equally many folds of one fold map.
        metadata: What the whole shall say of itself.

    Returns:
        The Fisher of all examples; its tensors are computed when they are asked for.

    Raises:
        UsageError: If there is none, one is no Fisher, or parameters, shapes, numbers of folds or fold maps differ.
        MeasurementError: If the folds of one lack a parameter, differ from the whole in shape, or do not count its
            examples.

    Example:
        >>> from torch import tensor
        >>> one = Footprint("fisher", {"w": tensor([1.0, 0.0])}, count=1)
        >>> three = Footprint("fisher", {"w": tensor([5.0, 4.0])}, count=3)
        >>> joined([one, three], {})["w"]
        tensor([4., 3.])
    """
    if not footprints:
        raise UsageError("expected at least one Fisher to join, got none")
    first = footprints[0]
    for index, each in enumerate(footprints):
        _check(f"footprint {index + 1} of {len(footprints)}", each, first)
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
        row_digests=_by_fold([each.row_digests for each in footprints]),
        source_rows=_by_fold([each.source_rows for each in footprints]),
    )


def _by_fold(parts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Put the rows of every fold together; what was not measured of one is not known of all."""
    return {fold: torch.cat([part[fold] for part in parts]) for fold in parts[0]} if all(parts) else {}


def _check(words: str, footprint: Footprint, first: Footprint) -> None:
    """Check that one footprint is whole, and goes with the first."""
    if footprint.kind != "fisher":
        raise UsageError(f"expected Fishers, got {words} of kind {footprint.kind}: only means over examples add")
    if footprint.names != first.names or len(footprint.folds) != len(first.folds):
        raise UsageError(
            f"expected Fishers of the same {len(first)} parameters with {len(first.folds)} folds, got {words} with "
            f"{len(footprint)} and {len(footprint.folds)}{_odd(footprint.names, first.names)}: measure them with the "
            "same options"
        )
    if _fold_map(footprint) != _fold_map(first):
        raise UsageError(
            f"expected folds of the map {_fold_map(first)}, got {_fold_map(footprint)} in {words}: a source row must "
            "be in the same fold everywhere; measure them with the same version"
        )
    for name in first.names:
        shape, expected = _shape(footprint.tensors, name), _shape(first.tensors, name)
        if shape != expected:
            raise UsageError(
                f"expected {name} of shape {list(expected)}, got {list(shape)} in {words}: measure one model"
            )
    counts = [fold.count for fold in footprint.folds]
    if footprint.count < 1 or (counts and (min(counts) < 1 or sum(counts) != footprint.count)):
        raise MeasurementError(
            f"expected folds of at least one example each that count all, got {counts} for the {footprint.count} "
            f"examples of {words}: measure it again, with fewer folds where one is empty"
        )
    for number, fold in enumerate(footprint.folds):
        if set(fold.tensors) != set(footprint.names):
            odd = _odd(tuple(fold.tensors), footprint.names)
            raise MeasurementError(f"fold {number} of {words} has other parameters than the whole{odd}; measure again")
        for name in footprint.names:
            shape, expected = _shape(fold.tensors, name), _shape(footprint.tensors, name)
            if shape != expected:
                raise MeasurementError(
                    f"fold {number} of {words}: {name} has shape {list(shape)}, expected {list(expected)} as in the "
                    "whole; measure it again"
                )


def _odd(names: Sequence[str], expected: Sequence[str]) -> str:
    """Name a parameter that only one of two has."""
    odd = [name for name in (*expected, *names) if (name in expected) != (name in names)]
    return f" ({odd[0]} is not in both)" if odd else ""


def _fold_map(footprint: Footprint) -> str:
    described = footprint.metadata.get("folds")
    return str(described.get("map", "not stated")) if isinstance(described, Mapping) else "not stated"


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tensors.shape(name) if isinstance(tensors, (StoredTensors, _Mean)) else tuple(tensors[name].shape)


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
            tensors.rows(name, start, stop)
            if isinstance(tensors, (StoredTensors, _Mean))
            else tensors[name][start:stop]
            for _, tensors in self._parts
        ])

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a shape without computing anything."""
        return _shape(self._parts[0][1], name)

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
