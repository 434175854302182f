"""One quantity at every level of a network: per layer, per parameter, and of all weights together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.names import Named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Levels:
    """One quantity per layer, per parameter and of all weights together."""

    by_layer: Mapping[str, Array]
    """Per layer; ``[n, n]`` for pairs, ``[n]`` for footprints."""

    by_parameter: Mapping[str, Array]
    """Per parameter."""

    pooled: Array
    """Of all weights as one."""

    @cached_property
    def layer_mean(self) -> Array:
        """Mean of ``by_layer`` over the layers where it is defined; nan where it is in none."""
        return frozen(mean_over_layers([values[None] for values in self.by_layer.values()])[0])


def levels_of(
    of: Callable[[tuple[str, ...]], Array], layers: Mapping[str, tuple[str, ...]], parameters: tuple[str, ...]
) -> Levels:
    """Compute a quantity at every level."""
    return Levels(
        Named("layer", {layer: frozen(of(members)) for layer, members in layers.items()}),
        Named("parameter", {name: frozen(of((name,))) for name in parameters}),
        frozen(of(parameters)),
    )


def mean_over_layers(versions: Sequence[Array]) -> Array:
    """Average ``[K + 1, ...]`` per layer over the layers whose first version, that of all folds, is defined."""
    every = np.stack(versions)
    defined = np.isfinite(every[:, 0])
    count = defined.sum(axis=0)
    return np.asarray(np.where(defined[:, None], every, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan))


def frozen(array: Array) -> Array:
    """Make an array read only."""
    array.flags.writeable = False
    return array


def as_matrix(lists: Sequence[Sequence[float | None]], n: int) -> Array:
    """Read a matrix ``[n, n]`` of a record, in which null is nan."""
    array = np.array(lists, dtype=np.float64)
    if array.shape != (n, n):
        raise ValueError(f"a matrix of shape {list(array.shape)}, expected {[n, n]}")
    return array
