"""What an overlap table derives from its additive terms: every ratio, at every level, with and without each fold."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import layer_of
from commonweight.overlaps.alignment import shared_initialisation
from commonweight.overlaps.chance import mask_chance
from commonweight.overlaps.levels import levels_of
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.resampling.ratios import NO_FOLDS, OF_FISHERS, FoldRatios, estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from numpy.typing import NDArray

    from commonweight.base.estimate import Estimate
    from commonweight.footprints.footprint import Kind
    from commonweight.overlaps.alignment import Alignment, Reading
    from commonweight.overlaps.chance import MaskChance, MaskFacts
    from commonweight.overlaps.levels import Levels
    from commonweight.overlaps.resampling.ratios import Null, Quantity
    from commonweight.overlaps.resampling.sums import Resampled

    Array = NDArray[np.float64]


THE_SAME = 1e-12
"""Two footprints whose squared distance is less than this, relative to their size, are one and the same: sums over the
same numbers in another order differ by as much as 1e-14."""


class Derived(ABC):
    """The derived numbers of an overlap table, which holds what is named here."""

    names: tuple[str, ...]
    kind: Kind
    terms: Mapping[str, Array]
    alignment: Alignment
    depth: int | None
    masks: MaskFacts | None
    resampled: Resampled | None

    @property
    def measure(self) -> str:
        """``fisher_overlap``, ``jaccard_index`` or ``cosine_similarity`` (signed)."""
        return MEASURES[self.kind].name

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in model order; ``""`` is the whole network (depth 0)."""
        return tuple(self.members)

    @property
    def by_layer(self) -> Mapping[str, Array]:
        """Per layer the overlaps ``[n, n]``, normalised within the layer; read them beside ``trace_share``."""
        return self._raw.by_layer

    @property
    def by_parameter(self) -> Mapping[str, Array]:
        """Per parameter the overlaps ``[n, n]``, normalised within the parameter."""
        return self._raw.by_parameter

    @property
    def pooled(self) -> Array:
        """Overlaps ``[n, n]`` of all weights as one vector: the formula on the summed Gram matrix."""
        return self._raw.pooled

    @cached_property
    def layers_defined(self) -> NDArray[np.int64]:
        """In how many layers each overlap is defined, ``[n, n]``."""
        return np.asarray(sum(np.isfinite(overlap).astype(np.int64) for overlap in self.by_layer.values()))

    @property
    def layer_mean(self) -> Array:
        """Mean ``[n, n]`` of ``by_layer`` over the layers where it is defined; nan where it is in none."""
        return self._raw.layer_mean

    @property
    def trace_share(self) -> Mapping[str, Array]:
        """Per layer the share ``[n]`` of each footprint's trace (kept weights, squared norm); nan if it is empty."""
        return self._shares.by_layer

    @property
    def parameter_share(self) -> Mapping[str, Array]:
        """As ``trace_share``, per parameter."""
        return self._shares.by_parameter

    @property
    def density(self) -> Levels:
        """Fraction of the weights each mask keeps, ``[n]``: ``.by_layer``, ``.by_parameter``, ``.pooled``."""
        return self._beside.density

    @property
    def chance(self) -> Levels:
        """Jaccard index ``[n, n]`` of independent masks of these densities; nan where scores did not start so."""
        return self._beside.chance

    @property
    def corrected(self) -> Levels:
        """Overlap ``[n, n]``; of supermasks beyond chance, ``(overlap - chance) / (1 - chance)``, nan where chance is.

        Of Fishers with folds between different halves of the examples, over the root of both noise ceilings.
        """
        return self.over_folds.corrected if self.masks is None else self._beside.corrected

    @property
    def extrapolated(self) -> Levels:
        """Corrected overlap of Fishers ``[n, n]`` extrapolated in 1/n from halves and quarters; nan below 4 folds."""
        return self.over_folds.extrapolated

    @property
    def noise_ceiling(self) -> Levels:
        """Overlap ``[n]`` of two halves of the examples of one and the same Fisher."""
        return self.over_folds.noise_ceiling

    @property
    def null(self) -> Null:
        """Overlap ``[n, n]`` of permuted Fishers, corrected as ``corrected`` is: entries, rows, columns, the strictest.

        nan in a table that an earlier release wrote, whose nulls were of the same rows.
        """
        return self.over_folds.null

    def estimate(
        self,
        of: Quantity,
        a: str,
        b: str,
        layer: str | None = None,
        *,
        parameter: str | None = None,
        total: Literal["pooled", "layer_mean"] = "pooled",
    ) -> Estimate:
        """Give one number with its interval, by leaving out fold after fold."""
        return estimate(self, of, (a, b), layer, parameter, total)

    def contrast(
        self, first: tuple[str, str], second: tuple[str, str], of: Quantity = "corrected", layer: str | None = None
    ) -> Estimate:
        """Give the difference of two overlaps, first - second, with its interval."""
        # Leaving out a fold leaves out the same source rows on both sides. Two layers are set against each other by
        # subtracting their estimates.
        check_names(self.names, first, second)
        return self.estimate(of, *first, layer) - self.estimate(of, *second, layer)

    def shared_initialisation(self, a: str, b: str, layer: str | None = None) -> Reading:
        """Say whether two models share an initialisation, which ``aligned`` of a verdict asks.

        A layer reads as the weight matrix of it in which the models are farthest apart. Layers taken together (all
        weights, or what :meth:`roll_up` merged) read by their summed distance, and have none where layers without one
        hold more than half of a trace. Layers without a matrix, such as normalisations, are read with the whole.

        Args:
            a: Name of a footprint.
            b: Name of another.
            layer: One of ``layers``; None for all weights.

        Returns:
            ``shared initialisation``, ``no shared initialisation``, ``unclear`` or ``not measured``, as
            ``alignment.reading`` says.

        Raises:
            UsageError: If there is no such footprint.
            KeyError: If there is no such layer.

        Example:
            >>> from torch import ones, tensor
            >>> from commonweight import Footprint, overlap
            >>> f = {"body.weight": ones(2), "head.weight": ones(1)}
            >>> a, b = ({"body.weight": tensor([3.0, 2.0]), "head.weight": tensor([w])} for w in (1.0, -1.0))
            >>> table = overlap({name: Footprint("fisher", f, 8, weight_sample=w) for name, w in (("a", a), ("b", b))})
            >>> table.shared_initialisation("a", "b"), table.shared_initialisation("a", "b", "head")
            ('shared initialisation', 'no shared initialisation')
        """
        return shared_initialisation(self, a, b, layer)

    def one_and_the_same(self, a: str, b: str) -> bool:
        """Tell whether two footprints hold the same numbers: ``|x - y|² = G_ii + G_jj - 2 G_ij`` in every parameter."""
        i, j = self.names.index(a), self.names.index(b)
        return all(
            gram[i, i] + gram[j, j] - 2 * gram[i, j] <= THE_SAME * (gram[i, i] + gram[j, j])
            for gram in self.terms.values()
        )

    @cached_property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """The parameters of each layer."""
        members: dict[str, tuple[str, ...]] = {}
        for parameter in self.terms:
            layer = layer_of(parameter)
            if self.depth is not None:
                layer = ".".join(layer.split(".")[: self.depth])
            members[layer] = (*members.get(layer, ()), parameter)
        return members

    @cached_property
    def _raw(self) -> Levels:
        return self._levels(lambda parameters: MEASURES[self.kind].from_gram(self._sum(parameters)))

    @cached_property
    def _shares(self) -> Levels:
        whole = np.diagonal(self._sum(tuple(self.terms)))
        whole = np.where(whole > 0, whole, np.nan)
        return self._levels(lambda parameters: np.diagonal(self._sum(parameters)) / whole)

    @cached_property
    def _beside(self) -> MaskChance:
        if self.masks is None:
            raise UsageError(f"density and chance are of supermasks, and this table is of kind {self.kind}")
        return mask_chance(self.masks, self.members, self.terms, self._raw)

    @cached_property
    def over_folds(self) -> FoldRatios:
        """Everything that the folds give, for all of them and without each."""
        if self.resampled is None:
            raise UsageError(NO_FOLDS if self.kind == "fisher" else f"{OF_FISHERS}, and this table is of {self.kind}")
        return FoldRatios(self.resampled, self.terms, self.members)

    def _sum(self, parameters: tuple[str, ...]) -> Array:
        return np.asarray(sum(self.terms[name] for name in parameters))

    def _levels(self, of: Callable[[tuple[str, ...]], Array]) -> Levels:
        return levels_of(of, self.members, tuple(self.terms))


def check_names(names: Sequence[str], *pairs: tuple[str, str]) -> None:
    """Check that pairs are what they should be."""
    for pair in pairs:
        wrong = isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != len(("a", "b"))
        if wrong or not all(isinstance(name, str) for name in pair):
            raise UsageError(
                f"expected pairs of two names each, such as ('a', 'b'), ('a', 'c'), got "
                f"{', '.join(map(repr, pairs))}; there are {', '.join(map(repr, names))}"
            )
