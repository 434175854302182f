"""The numbers of an overlap table, enumerated once: at every level, and as the records that all views are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.names import Named
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.chance import chance_corrected, chance_jaccard
from commonweight.overlaps.measures.of_changes import norm_ratio, sign_agreement
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.resampling.ratios import PERMUTED, FoldRatios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from commonweight.footprints.footprint import Kind
    from commonweight.overlaps.chance import MaskFacts
    from commonweight.overlaps.resampling.ratios import Resampled

    Array = NDArray[np.float64]
    Parameters = tuple[str, ...]
    Versions = Callable[[Parameters], Array]

By = Literal["layer", "parameter"]
Level = Literal["pooled", "layer_mean", "layer", "parameter"]
Quantity = Literal["raw", "corrected", "null", "above_null"]
"""What an estimate can be asked of."""

TOTALS: tuple[Level, ...] = ("pooled", "layer_mean")
TOTALS_OF: dict[str, tuple[Level, ...]] = {"trace_share": (), "density": ("pooled",), "norm_ratio": ("pooled",)}
"""Quantities that do not have both totals."""

WHOLE = "whole network"
"""What the layer with the empty name is called."""

NO_FOLDS = (
    "without folds in every footprint there is no noise ceiling, no correction and no interval: measure with folds, "
    "such as fisher(..., folds=8)"
)
OF_FISHERS = "noise ceilings, corrections over folds, permutation nulls and verdicts on them are of Fishers"
OF_MASKS = "; of masks, table.corrected is the Jaccard index beyond chance"


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
            return strictest(np.stack([each.by_parameter[parameter] for each in every]))
        return strictest(np.stack([each.pooled if layer is None else each.by_layer[layer] for each in every]))


class Row(NamedTuple):
    """One number of a table, with all that is known of it.

    Example:
        >>> Row("layer", "fc", "a", "b", "raw", 0.5, 0.4, 0.6, "", 8)._asdict()["quantity"]
        'raw'
    """

    level: Level
    """``pooled``: all weights as one. ``layer_mean``: the mean over the layers where it is defined."""

    name: str
    """The layer or parameter; empty for totals."""

    a: str
    """A footprint."""

    b: str | None
    """The other of a pair, at totals also itself; None where the quantity is of one footprint."""

    quantity: str
    """``raw``, ``trace_share``, ``density``, ``chance``, ``sign_agreement``, ``norm_ratio``, ``noise_ceiling``,
    ``corrected``, ``null``, ``above_null``, or ``layers``: over how many layers a layer mean goes."""

    value: float
    """nan where it is undefined."""

    low: float
    """Lower end of the 95 % interval; nan where there is none."""

    high: float
    """Upper end."""

    null: str
    """Of a null what is permuted: ``entries``, ``rows`` or ``columns``."""

    n: int
    """Folds behind the interval; 0 without folds."""


class Numbers:
    """Every number of a table, derived from its additive terms.

    A quantity is a function of some parameters together. It gives ``[K + 1, n, n]``, or ``[K + 1, n]`` of single
    footprints: of all folds, and without each; K is 0 without folds.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        kind: Kind,
        terms: Mapping[str, Array],
        layers: Mapping[str, Parameters],
        masks: MaskFacts | None,
        resampled: Resampled | None,
        sizes: Mapping[str, Array] | None,
    ) -> None:
        self.names, self.kind, self.layers, self.parameters = names, kind, layers, tuple(terms)
        self._terms = terms
        self._levels: dict[str, Levels] = {}
        self._records: dict[By, list[Row]] = {}
        self.quantities: dict[str, Versions] = {"raw": self._raw, "trace_share": self._share}
        if masks is not None:
            self.quantities |= {
                "density": partial(self._density, masks),
                "chance": partial(self._chance, masks),
                "corrected": partial(self._beyond_chance, masks),
            }
        if sizes is not None:
            self.quantities |= {"sign_agreement": partial(self._sign_agreement, sizes), "norm_ratio": self._norm_ratio}
        if resampled is not None:
            ratios = FoldRatios(resampled, terms)
            self._nulls = nulls = cache(ratios.nulls)
            self.quantities |= {
                "raw": ratios.raw,
                "noise_ceiling": ratios.noise_ceiling,
                "corrected": ratios.corrected,
                "null": lambda parameters: np.asarray(nulls(parameters)[-1]),
                "above_null": lambda parameters: np.asarray(ratios.corrected(parameters) - nulls(parameters)[-1]),
            }

    def of(self, quantity: str) -> Versions:
        """Find a quantity, or say what it takes."""
        if quantity in self.quantities:
            return self.quantities[quantity]
        if quantity in {"sign_agreement", "norm_ratio"}:
            raise UsageError(f"sign agreement and norm ratio are of changes, and this table is of kind {self.kind}")
        if quantity in {"density", "chance"}:
            raise UsageError(f"density and chance are of supermasks, and this table is of kind {self.kind}")
        if self.kind in IMPORTANCES:
            raise UsageError(NO_FOLDS)
        more = OF_MASKS if self.kind == "supermask" else ""
        raise UsageError(f"{OF_FISHERS}, and this table is of kind {self.kind}{more}")

    def levels(self, quantity: str) -> Levels:
        """Compute a quantity at every level, of all folds."""
        if quantity not in self._levels:
            self._levels[quantity] = self._at_every_level(self.of(quantity))
        return self._levels[quantity]

    def null(self) -> Null:
        """Compute the three nulls at every level."""
        strictest = self.levels("null")

        def of(place: int) -> Levels:
            return self._at_every_level(lambda parameters: np.asarray(self._nulls(parameters)[place]))

        return Null(of(0), of(1), of(2), strictest)

    def records(self, by: By) -> list[Row]:
        """Enumerate the totals of all quantities, and those per layer or per parameter."""
        if by not in self._records:
            self._records[by] = [row for quantity in self.quantities for row in self._rows_of(quantity, by)]
        return list(self._records[by])

    def _at_every_level(self, versions: Versions) -> Levels:
        return Levels(
            Named("layer", {layer: frozen(versions(members)[0]) for layer, members in self.layers.items()}),
            Named("parameter", {name: frozen(versions((name,))[0]) for name in self.parameters}),
            frozen(versions(self.parameters)[0]),
        )

    def _rows_of(self, quantity: str, by: By) -> Iterator[Row]:
        versions = self.quantities[quantity]
        of_layers = {layer: versions(members) for layer, members in self.layers.items()}
        totals = TOTALS_OF.get(quantity, TOTALS)
        if "pooled" in totals:
            yield from self._rows("pooled", "", quantity, versions(self.parameters), self.parameters)
        if "layer_mean" in totals:
            yield from self._rows("layer_mean", "", quantity, mean_over_layers([*of_layers.values()]))
        if quantity == "raw":
            count = np.isfinite([found[0] for found in of_layers.values()]).sum(axis=0, dtype=np.float64)
            yield from self._rows("layer_mean", "", "layers", count[None])
        groups = self.layers if by == "layer" else {name: (name,) for name in self.parameters}
        for name, members in groups.items():
            found = of_layers[name] if by == "layer" else versions(members)
            yield from self._rows(by, name, quantity, found, members)

    def _rows(
        self, level: Level, name: str, quantity: str, versions: Array, parameters: Parameters = ()
    ) -> Iterator[Row]:
        permuted = strictest(self._nulls(parameters)[:3, 0]) if quantity == "null" and parameters else None
        every = range(len(self.names))
        of_pairs = combinations_with_replacement if level in TOTALS else combinations
        places: Any = of_pairs(every, 2) if versions.ndim == 3 else ((i,) for i in every)
        for place in places:
            value, *without = versions[(slice(None), *place)].tolist()
            half = Estimate(value, tuple(without), "folds").half_width()
            a, b = self.names[place[0]], self.names[place[1]] if len(place) > 1 else None
            null = "" if permuted is None else str(permuted[place])
            yield Row(level, name, a, b, quantity, value, value - half, value + half, null, len(without))

    def _gram(self, parameters: Parameters) -> Array:
        return np.asarray(sum(self._terms[name] for name in parameters))

    def _raw(self, parameters: Parameters) -> Array:
        return MEASURES[self.kind].from_gram(self._gram(parameters))[None]

    def _share(self, parameters: Parameters) -> Array:
        return np.asarray(np.diagonal(self._gram(parameters)) / self._traces)[None]

    @cached_property
    def _traces(self) -> Array:
        whole = np.diagonal(self._gram(self.parameters))
        return np.where(whole > 0, whole, np.nan)

    def _density(self, masks: MaskFacts, parameters: Parameters) -> Array:
        size = sum(masks.sizes[name] for name in parameters)
        return np.asarray(np.diagonal(self._gram(parameters)) / (size or np.nan))[None]

    def _chance(self, masks: MaskFacts, parameters: Parameters) -> Array:
        level = chance_jaccard({name: self._terms[name] for name in parameters}, masks.sizes)
        return np.where(masks.independent, level, np.nan)[None]

    def _beyond_chance(self, masks: MaskFacts, parameters: Parameters) -> Array:
        return chance_corrected(self._raw(parameters), self._chance(masks, parameters))

    def _sign_agreement(self, sizes: Mapping[str, Array], parameters: Parameters) -> Array:
        return sign_agreement(self._gram(parameters), np.asarray(sum(sizes[name] for name in parameters)))[None]

    def _norm_ratio(self, parameters: Parameters) -> Array:
        return norm_ratio(self._gram(parameters))[None]


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


def strictest(nulls: Array) -> NDArray[np.str_]:
    """Name the largest of three nulls ``[3, n, n]``, pair by pair."""
    names = np.asarray(PERMUTED)[np.argmax(np.nan_to_num(nulls, nan=-1.0), axis=0)]
    return np.where(np.isfinite(nulls).any(axis=0), names, "")


def to_columns(rows: Sequence[Row]) -> dict[str, Any]:
    """Write records for JSON: the names of the columns once, and one list per record."""
    return {"columns": list(Row._fields), "rows": [list(row) for row in rows]}


def to_frame(rows: Sequence[Row], by: By) -> pd.DataFrame:
    """Give one row per layer (or parameter) and pair, without totals."""
    import pandas as pd

    found = {(row.name, row.a, row.b, row.quantity): row for row in rows if row.level == by}
    pairs = [key[:3] for key in found if key[3] == "raw"]
    columns: dict[str, list[Any]] = {
        head: list(values) for head, values in zip((by, "a", "b"), zip(*pairs, strict=True), strict=True)
    }
    for quantity, of_pairs in {row.quantity: row.b is not None for row in found.values()}.items():
        if of_pairs:
            columns |= _columns("overlap" if quantity == "raw" else quantity, [found[*key, quantity] for key in pairs])
            continue
        for side in (1, 2):
            each = [found[key[0], str(key[side]), None, quantity] for key in pairs]
            columns |= _columns(f"{quantity}_{'ab'[side - 1]}", each)
    return pd.DataFrame(columns)


def _columns(head: str, rows: Sequence[Row]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {head: [row.value for row in rows]}
    if any(row.n for row in rows):
        columns |= {f"{head}_low": [row.low for row in rows], f"{head}_high": [row.high for row in rows]}
    if any(row.null for row in rows):
        columns[f"{head}_permutes"] = [row.null for row in rows]
    return columns
