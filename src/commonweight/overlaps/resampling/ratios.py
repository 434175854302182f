r"""Noise ceiling, corrected overlap, null and intervals of a table, derived from the sums over its folds.

With the Gram matrices of :mod:`commonweight.overlaps.resampling.sums`, for all folds and without each:

=============  ====================================================================================================
raw            :math:`G_{ij} / \sqrt{G_{ii} G_{jj}}`
half           :math:`O_{ij} = N_{ij} / T_{ij}`: overlap of different halves, over all splits
noise ceiling        :math:`O_{ii}`: of two halves of the examples of one footprint
corrected      :math:`O_{ij} / \sqrt{O_{ii} O_{jj}}`
extrapolated   2 × corrected from halves − corrected from quarters: the term in 1/n cancels
null           :math:`(P_{ij} / T_{ij}) / \sqrt{O_{ii} O_{jj}}`, the largest of three permutations
above_null     corrected − null
=============  ====================================================================================================

with N the ``half`` sums, P the ``null`` sums and :math:`T_{ij} = \tfrac12 \sum_h \sqrt{\mathrm{tr} F_{i,H}\,
\mathrm{tr} F_{j,H'}} + (H \leftrightarrow H')`. Without T the traces of different halves would not cancel, and their
noise would push corrected overlaps up: a single weight would have an overlap above 1 with itself elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.names import Named, among
from commonweight.footprints.footprint import layer_of
from commonweight.overlaps.levels import Levels, levels_of, mean_of_defined
from commonweight.overlaps.measures.ratio import cosine_ratio
from commonweight.overlaps.resampling.null import PERMUTED
from commonweight.overlaps.resampling.splits import splits_of
from commonweight.overlaps.resampling.sums import FoldTerms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from commonweight.overlaps.resampling.splits import Part
    from commonweight.overlaps.resampling.sums import Resampled
    from commonweight.overlaps.table.numbers import Derived

    Array = NDArray[np.float64]
    Designs = tuple[tuple[Part, ...], ...]

Quantity = Literal["raw", "corrected", "extrapolated", "null", "above_null"]
NO_FOLDS = (
    "without folds in every footprint there is no noise ceiling, no correction and no interval: measure with folds, "
    "such as "
    "fisher(..., folds=8)"
)
NO_NULL = (
    "there is no null: this table was written by an earlier release, whose nulls were of the same examples, so make it "
    "again from the footprints"
)
OF_FISHERS = "noise ceilings, corrections over folds and permutation nulls are of Fishers"


@dataclass(frozen=True, eq=False)
class Null:
    """What permuted Fishers overlap by, corrected as the overlaps they stand beside; ``[n, n]`` at every level."""

    entries: Levels
    """Any entry takes any place within its parameter."""

    rows: Levels
    """Rows (units) are exchanged."""

    columns: Levels
    """Columns (inputs) are exchanged."""

    strictest: Levels
    """The largest of the three, pair by pair."""

    def which(self, layer: str | None = None, *, parameter: str | None = None) -> NDArray[np.str_]:
        """Name the strictest.

        Args:
            layer: A layer; None for all weights pooled.
            parameter: A parameter instead.

        Returns:
            ``[n, n]``: ``entries``, ``rows`` or ``columns``; empty where it is undefined. Of equal ones the first.
        """
        every = [self.entries, self.rows, self.columns]
        if parameter is not None:
            values = np.stack([each.by_parameter[parameter] for each in every])
        else:
            values = np.stack([each.pooled if layer is None else each.by_layer[layer] for each in every])
        names = np.asarray(PERMUTED)[np.argmax(np.nan_to_num(values, nan=-1.0), axis=0)]
        return np.where(np.isfinite(values).any(axis=0), names, "")


class FoldRatios:
    """Ratios at every level, for all folds and without each.

    Args:
        resampled: The sums over folds.
        grams: Per parameter the Gram matrix of all folds.
        layers: The parameters of each layer.
    """

    def __init__(self, resampled: Resampled, grams: Mapping[str, Array], layers: Mapping[str, tuple[str, ...]]) -> None:
        self._resampled, self._grams, self._layers = resampled, grams, layers
        self._every, self._splits = tuple(grams), splits_of(resampled.folds)
        self._sums: dict[tuple[str, ...], FoldTerms] = {}
        self._versions: dict[tuple[Quantity, tuple[str, ...]], Array] = {}

    @property
    def has_null(self) -> bool:
        """Whether the sums of permuted halves are there; tables of an earlier release lack them."""
        return not all(np.isnan(terms.null).all() for terms in self._resampled.terms.values())

    @cached_property
    def noise_ceiling(self) -> Levels:
        """Overlap ``[n]`` of two halves of a footprint's own examples."""
        return self._levels(lambda parameters: self._noise_ceilings(parameters)[0])

    @cached_property
    def corrected(self) -> Levels:
        """Overlap of different halves over the root of both noise ceilings, ``[n, n]``."""
        return self._levels(lambda parameters: self.versions("corrected", parameters)[0])

    @cached_property
    def extrapolated(self) -> Levels:
        """The corrected overlap extrapolated in 1/n, ``[n, n]``."""
        return self._levels(lambda parameters: self.versions("extrapolated", parameters)[0])

    @cached_property
    def null(self) -> Null:
        """Overlap of permuted halves over the root of both noise ceilings, ``[n, n]``."""

        def of(index: int) -> Levels:
            return self._levels(lambda parameters: np.array(self._nulls(parameters)[index, 0]))

        return Null(of(0), of(1), of(2), strictest=of(-1))

    def estimate(self, of: Quantity, i: int, j: int, parameters: tuple[str, ...] | None) -> Estimate:
        """Estimate a quantity of some parameters together."""
        if parameters is None:
            values = np.stack([self.versions(of, members)[:, i, j] for members in self._layers.values()])
            values = values[np.isfinite(values[:, 0])]  # the same layers with and without a fold
            found = values.mean(axis=0) if len(values) else np.full(self._resampled.folds + 1, np.nan)
        else:
            found = self.versions(of, parameters)[:, i, j]
        return Estimate(float(found[0]), tuple(found[1:].tolist()), "folds")

    def noise_ceiling_estimate(self, i: int, parameters: tuple[str, ...] | None) -> Estimate:
        """Estimate a noise ceiling."""
        every = list(self._layers.values()) if parameters is None else [parameters]
        found = mean_of_defined(np.stack([self._noise_ceilings(members)[:, i] for members in every]))
        return Estimate(float(found[0]), tuple(found[1:].tolist()), "folds")

    def versions(self, of: Quantity, parameters: tuple[str, ...]) -> Array:
        """Compute a quantity of some parameters together, for all folds and without each."""
        if (of, parameters) not in self._versions:
            self._versions[of, parameters] = self._computed(of, parameters)
        return self._versions[of, parameters]

    def _computed(self, of: Quantity, parameters: tuple[str, ...]) -> Array:
        sums = self._terms(parameters)
        if of == "raw":
            return _cosines(self._full(parameters, sums))
        if of == "corrected":
            return _cosines(self._overlaps(sums.half, sums, self._splits.halves))
        if of == "extrapolated":
            quarters = _cosines(self._overlaps(sums.quarter, sums, self._splits.quarters))
            return 2 * self.versions("corrected", parameters) - quarters
        if of == "null":
            return np.array(self._nulls(parameters)[-1])
        if of == "above_null":
            return self.versions("corrected", parameters) - self.versions("null", parameters)
        raise UsageError(f"expected raw, corrected, extrapolated, null or above_null, got {of!r}")

    def _full(self, parameters: tuple[str, ...], sums: FoldTerms) -> Array:
        gram = np.asarray(sum(self._grams[name] for name in parameters))
        return np.concatenate([gram[None], sums.full])

    def _nulls(self, parameters: tuple[str, ...]) -> Array:
        """Entries, rows, columns, and the one of them that is the strictest for all folds: ``[4, K + 1, n, n]``."""
        sums, noise_ceilings = self._terms(parameters), self._noise_ceilings(parameters)
        lengths = np.sqrt(np.where(noise_ceilings > 0, noise_ceilings, np.nan))
        halves = self._overlaps(sums.null, sums, self._splits.halves)
        found = halves / (lengths[:, :, None] * lengths[:, None, :])
        strictest = np.argmax(np.nan_to_num(found[:, 0], nan=-1.0), axis=0)
        chosen = np.take_along_axis(found, np.broadcast_to(strictest, (1, *found.shape[1:])), axis=0)
        return np.concatenate([found, chosen])

    def _noise_ceilings(self, parameters: tuple[str, ...]) -> Array:
        sums = self._terms(parameters)
        overlaps = self._overlaps(sums.half, sums, self._splits.halves)
        return np.array(np.diagonal(overlaps, axis1=1, axis2=2))

    def _overlaps(self, products: Array, sums: FoldTerms, designs: Designs) -> Array:
        """Divide products of different parts by those of the roots of their traces: ``[..., K + 1, n, n]``."""
        if not designs:
            return np.full_like(products, np.nan)
        without = 1.0 - np.eye(self._splits.folds + 1, self._splits.folds, -1)
        most = np.zeros(products.shape[-3:])
        for parts in designs:
            chosen = [list(part) for part in parts]
            roots = np.sqrt(np.stack([without[:, part] @ sums.traces[part] for part in chosen], axis=2))
            whole = roots.sum(axis=2)
            most += (whole[:, :, None] * whole[:, None, :] - roots @ roots.swapaxes(1, 2)) / 2
        return np.asarray(products / np.where(most > 0, most, np.nan))

    def _terms(self, parameters: tuple[str, ...]) -> FoldTerms:
        if parameters not in self._sums:
            if self._resampled.per == "layer":
                owners = tuple(dict.fromkeys(map(layer_of, parameters)))
                whole = {name for name in self._every if layer_of(name) in owners} == set(parameters)
                found = FoldTerms.summed(self._resampled.terms[owner] for owner in owners)
                if not whole:
                    found = FoldTerms(**{name: np.full_like(array, np.nan) for name, array in found.arrays.items()})
            else:
                found = FoldTerms.summed(self._resampled.terms[name] for name in parameters)
            self._sums[parameters] = found
        return self._sums[parameters]

    def _levels(self, of: Callable[[tuple[str, ...]], Array]) -> Levels:
        return levels_of(of, self._layers, self._every)


def _cosines(grams: Array) -> Array:
    return np.stack([cosine_ratio(gram) for gram in grams])


def estimate(
    table: Derived,
    of: Quantity,
    pair: tuple[str, str],
    layer: str | None,
    parameter: str | None,
    total: Literal["pooled", "layer_mean"],
) -> Estimate:
    """Estimate a quantity of two footprints of a table, as :meth:`Derived.estimate` says."""
    if missing := [name for name in pair if name not in table.names]:
        raise UsageError(f"no footprint {missing[0]!r} in this table; {among(missing[0], table.names)}")
    if total not in {"pooled", "layer_mean"}:
        raise UsageError(f"total must be 'pooled' or 'layer_mean', got {total!r}")
    i, j = (table.names.index(name) for name in pair)
    levels = Levels(table.by_layer, table.by_parameter, table.pooled) if of == "raw" else None
    if table.masks is not None and of == "corrected":
        levels = table.corrected
    if levels is not None and table.resampled is None:
        by_name = levels.by_layer if parameter is None else levels.by_parameter
        name = layer if parameter is None else parameter
        whole = levels.pooled if total == "pooled" else levels.layer_mean
        return Estimate(float((whole if name is None else by_name[name])[i, j]), (), "folds")
    parameters: tuple[str, ...] | None = tuple(table.terms)
    if parameter is not None:
        parameters = Named("parameter", {name: (name,) for name in table.terms})[parameter]
    elif layer is not None:
        parameters = Named("layer", table.members)[layer]
    elif total == "layer_mean":
        parameters = None
    return table.over_folds.estimate(of, i, j, parameters)
