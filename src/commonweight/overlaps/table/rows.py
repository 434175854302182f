"""The quantities of an overlap table: at every level, and as records, from which all views of it are made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from commonweight.base.estimate import Estimate
from commonweight.base.names import Named
from commonweight.overlaps.resampling.sums import PERMUTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

By = Literal["layer", "parameter"]
Level = Literal["pooled", "layer_mean", "layer", "parameter"]
Quantity = Literal["raw", "corrected", "null", "above_null"]
"""What an estimate can be asked of."""

TOTALS: tuple[Level, ...] = ("pooled", "layer_mean")
WHOLE = "whole network"
"""What the layer with the empty name is called."""


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


def strictest(nulls: Array) -> NDArray[np.str_]:
    """Name the largest of three nulls ``[3, n, n]``, pair by pair."""
    names = np.asarray(PERMUTED)[np.argmax(np.nan_to_num(nulls, nan=-1.0), axis=0)]
    return np.where(np.isfinite(nulls).any(axis=0), names, "")


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
    """``raw``, ``trace_share``, ``density``, ``chance``, ``noise_ceiling``, ``corrected``, ``null``, ``above_null``, or
    ``layers``: over how many layers a layer mean goes."""

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


class Measured(NamedTuple):
    """A quantity that a table has."""

    name: str
    versions: Callable[[tuple[str, ...]], Array]
    """Of some parameters together ``[K + 1, n, n]``, or ``[K + 1, n]`` of single footprints: of all folds, and without
    each; K is 0 without folds."""

    totals: tuple[Level, ...] = TOTALS
    named: Callable[[tuple[str, ...]], NDArray[np.str_]] | None = None
    """What is permuted, ``[n, n]``."""


def rows_of(
    names: tuple[str, ...],
    by: By,
    layers: Mapping[str, tuple[str, ...]],
    parameters: tuple[str, ...],
    quantities: Sequence[Measured],
) -> list[Row]:
    """Enumerate the totals of all quantities, and those per layer or per parameter."""
    groups = layers if by == "layer" else {name: (name,) for name in parameters}
    rows: list[Row] = []
    for quantity in quantities:
        of_layers = [quantity.versions(members) for members in layers.values()]
        totals = {"pooled": quantity.versions(parameters), "layer_mean": mean_over_layers(of_layers)}
        for level in quantity.totals:
            named = quantity.named(parameters) if quantity.named and level == "pooled" else None
            rows += _rows(level, "", names, quantity.name, totals[level], named)
        if quantity.name == "raw":
            count = np.isfinite([versions[0] for versions in of_layers]).sum(axis=0, dtype=np.float64)
            rows += _rows("layer_mean", "", names, "layers", count[None], None)
        for name, members in groups.items():
            named = quantity.named(members) if quantity.named else None
            rows += _rows(by, name, names, quantity.name, quantity.versions(members), named)
    return rows


def _rows(
    level: Level, name: str, names: tuple[str, ...], quantity: str, versions: Array, named: NDArray[np.str_] | None
) -> Iterator[Row]:
    every = range(len(names))
    of_pairs = combinations_with_replacement if level in TOTALS else combinations
    places: Any = of_pairs(every, 2) if versions.ndim == 3 else ((i,) for i in every)
    for place in places:
        value, *without = versions[(slice(None), *place)].tolist()
        half = Estimate(value, tuple(without), "folds").half_width()
        a, b = names[place[0]], names[place[1]] if len(place) > 1 else None
        null = "" if named is None else str(named[place])
        yield Row(level, name, a, b, quantity, value, value - half, value + half, null, len(without))


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
