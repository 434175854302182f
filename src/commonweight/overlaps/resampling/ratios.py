r"""Noise ceiling, corrected overlap and null, derived from the sums over folds.

With the Gram matrices of :mod:`commonweight.overlaps.resampling.sums`, for all folds and without each:

=============  ====================================================================================================
raw            :math:`G_{ij} / \sqrt{G_{ii} G_{jj}}`
half           :math:`O_{ij} = N_{ij} / T_{ij}`: overlap of different halves, over all splits
noise_ceiling  :math:`O_{ii}`: of two halves of the examples of one footprint
corrected      :math:`O_{ij} / \sqrt{O_{ii} O_{jj}}`
null           :math:`(P_{ij} / T_{ij}) / \sqrt{O_{ii} O_{jj}}`, the largest of three permutations
above_null     corrected − null
=============  ====================================================================================================

with N the ``half`` sums, P the ``null`` sums and :math:`T_{ij} = \tfrac12 \sum_h \sqrt{\mathrm{tr} F_{i,H}\,
\mathrm{tr} F_{j,H'}} + (H \leftrightarrow H')`. Without T the traces of different halves would not cancel, and their
noise would push corrected overlaps up: a single weight would have an overlap above 1 with itself elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from commonweight.overlaps.measures.gram import cosine_ratio
from commonweight.overlaps.resampling.splits import splits_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


Permuted = Literal["entries", "rows", "columns"]
PERMUTED: tuple[Permuted, ...] = get_args(Permuted)


@dataclass(frozen=True, eq=False)
class FoldTerms:
    """The additive sums of one parameter, or of several together, over K folds and n footprints.

    Where a first dimension has K + 1 entries, entry 0 is of all folds and entry k of all but fold k - 1.
    """

    full: Array
    """``[K, n, n]``: without each fold; of all folds it is the table's own Gram matrix."""

    half: Array
    """``[K + 1, n, n]``, summed over the splits."""

    null: Array
    """``[3, K + 1, n, n]``: entries, rows, columns of the halves permuted."""

    traces: Array
    """``[K, n]``: the trace of each fold's part of the Fisher."""

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.flags.writeable = False

    @property
    def arrays(self) -> dict[str, Array]:
        """All of them by name."""
        return {"full": self.full, "half": self.half, "null": self.null, "traces": self.traces}

    def of(self, places: Sequence[int]) -> FoldTerms:
        """Give the sums of some of the footprints, in another order."""
        rows, columns = np.ix_(places, places)
        full, half, null = (array[..., rows, columns] for array in (self.full, self.half, self.null))
        return FoldTerms(full, half, null, self.traces[:, places])

    @classmethod
    def summed(cls, terms: Iterable[FoldTerms]) -> FoldTerms:
        """Add the sums of several parameters."""
        each = [one.arrays for one in terms]
        return cls(**{name: np.asarray(sum(one[name] for one in each)) for name in each[0]})


@dataclass(frozen=True, eq=False)
class Resampled:
    """The sums over folds that belong to a table."""

    folds: int
    """K."""

    terms: Mapping[str, FoldTerms]
    """Per parameter."""


class FoldRatios:
    """Ratios of some parameters together, for all folds (first) and without each.

    Args:
        resampled: The sums over folds.
        grams: Per parameter the Gram matrix of all folds.
    """

    def __init__(self, resampled: Resampled, grams: Mapping[str, Array]) -> None:
        self._resampled, self._grams = resampled, grams
        folds, halves = resampled.folds, splits_of(resampled.folds).halves
        self._halves = np.array([[np.isin(range(folds), half) for half in pair] for pair in halves], dtype=np.float64)
        self._versions = 1.0 - np.eye(folds + 1, folds, -1)
        self._sums: dict[tuple[str, ...], FoldTerms] = {}
        self._overlaps: dict[tuple[str, ...], Array] = {}

    def raw(self, parameters: tuple[str, ...]) -> Array:
        """Compute raw overlaps ``[K + 1, n, n]``."""
        gram = np.asarray(sum(self._grams[name] for name in parameters))
        return cosine_ratio(np.concatenate([gram[None], self._terms(parameters).full]))

    def noise_ceiling(self, parameters: tuple[str, ...]) -> Array:
        """Compute the overlaps ``[K + 1, n]`` of two halves of a footprint's own examples."""
        return np.array(np.diagonal(self._of_halves(parameters), axis1=1, axis2=2))

    def corrected(self, parameters: tuple[str, ...]) -> Array:
        """Compute overlaps of different halves over the root of both noise ceilings, ``[K + 1, n, n]``."""
        return cosine_ratio(self._of_halves(parameters))

    def nulls(self, parameters: tuple[str, ...]) -> Array:
        """Compute entries, rows, columns, and the one that is the strictest for all folds: ``[4, K + 1, n, n]``."""
        noise_ceilings = self.noise_ceiling(parameters)
        lengths = np.sqrt(np.where(noise_ceilings > 0, noise_ceilings, np.nan))
        halves = self._divided(self._terms(parameters).null, parameters)
        found = halves / (lengths[:, :, None] * lengths[:, None, :])
        largest = np.argmax(np.nan_to_num(found[:, 0], nan=-1.0), axis=0)
        chosen = np.take_along_axis(found, np.broadcast_to(largest, (1, *found.shape[1:])), axis=0)
        return np.concatenate([found, chosen])

    def _of_halves(self, parameters: tuple[str, ...]) -> Array:
        if parameters not in self._overlaps:
            self._overlaps[parameters] = self._divided(self._terms(parameters).half, parameters)
        return self._overlaps[parameters]

    def _divided(self, products: Array, parameters: tuple[str, ...]) -> Array:
        """Divide products of different halves by those of the roots of their traces: ``[..., K + 1, n, n]``."""
        # [halves, K + 1, n, splits]: roots of the traces of each half, of all folds and without each.
        roots = np.sqrt(np.einsum("shk,vk,kn->hvns", self._halves, self._versions, self._terms(parameters).traces))
        crossed = roots[0] @ roots[1].swapaxes(-2, -1)
        most = (crossed + crossed.swapaxes(-2, -1)) / 2
        return np.asarray(products / np.where(most > 0, most, np.nan))

    def _terms(self, parameters: tuple[str, ...]) -> FoldTerms:
        if parameters not in self._sums:
            self._sums[parameters] = FoldTerms.summed(self._resampled.terms[name] for name in parameters)
        return self._sums[parameters]
