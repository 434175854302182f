"""One quantity at every level of a network: per layer, per parameter, and of all weights together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.names import Named
from commonweight.overlaps.measures.ratio import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        return frozen(mean_of_defined(np.stack(list(self.by_layer.values()))))

    def by(self, what: str) -> Mapping[str, Array]:
        """Give the values per layer or per parameter.

        Args:
            what: ``layer`` or ``parameter``.

        Returns:
            Name -> values.
        """
        return self.by_layer if what == "layer" else self.by_parameter


def levels_of(
    of: Callable[[tuple[str, ...]], Array], layers: Mapping[str, tuple[str, ...]], parameters: tuple[str, ...]
) -> Levels:
    """Compute a quantity at every level."""
    return Levels(
        Named("layer", {layer: frozen(of(members)) for layer, members in layers.items()}),
        Named("parameter", {name: frozen(of((name,))) for name in parameters}),
        frozen(of(parameters)),
    )


def mean_of_defined(values: Array) -> Array:
    """Average over the first dimension what is not nan."""
    defined = np.isfinite(values).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.where(defined > 0, defined, np.nan))
