"""The numbers of the interactive parts: overlap tables as columns, for every module at every depth, as one JSON text.

Numbers have four significant digits. Every pair is there once, in the order of :func:`itertools.combinations`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from commonweight.base.estimate import Estimate
from commonweight.base.progress import track
from commonweight.footprints.footprint import NON_NEGATIVE, SIGNED
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.report.curves import FEWEST_FOR_BANDS
from commonweight.report.overlap import spoken, spoken_pair
from commonweight.verdicts.words import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commonweight.overlaps.table.numbers import Row
    from commonweight.overlaps.table.table import OverlapTable

MOST_MODULES = 800
"""Rows of the network; deeper modules are merged into blocks until no more are left."""

MOST_NUMBERS = 250_000
"""Numbers of one comparison, about 1.5 MB; the same happens beyond."""

OWN = "(own weights)"
"""What the weights are called that a module owns beside its submodules."""

EXACT = 1e-12
"""Nearer to 1 than this is 1."""

ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Quantity:
    """A number of the table that the page can show."""

    key: str
    """As records call it."""

    title: str
    low: float = 0.0
    high: float = 1.0
    is_mapped: bool = True
    """Whether the heat map offers it."""

    is_of_pairs: bool = True


FISHER = (
    Quantity("corrected", "overlap, noise taken out"),
    Quantity("raw", "raw overlap"),
    Quantity("above_null", "overlap beyond its null", low=-1.0),
    Quantity("null", "null", is_mapped=False),
    Quantity("noise_ceiling", "noise ceiling", is_of_pairs=False),
    Quantity("trace_share", "trace share", is_of_pairs=False),
)
WITHOUT_FOLDS = (
    Quantity("raw", "raw overlap"),
    Quantity("trace_share", "trace share", is_of_pairs=False),
)
MASKS = (
    Quantity("corrected", "overlap beyond chance", low=-1.0),
    Quantity("raw", "Jaccard index"),
    Quantity("chance", "chance", is_mapped=False),
    Quantity("density", "density", is_of_pairs=False),
    Quantity("trace_share", "share of kept weights", is_of_pairs=False),
)
ACTIVITY = (Quantity("raw", "cosine similarity", low=-1.0),)


@dataclass(frozen=True)
class Overlaps:
    """A comparison to look at."""

    title: str
    tables: Sequence[OverlapTable]
    """One; or one per training seed, of footprints of the same names, which are averaged."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What there is to see; a quantity that is undefined everywhere is left out."""
        table = self.tables[0]
        if table.kind in NON_NEGATIVE:
            return FISHER if all(each.resampled is not None for each in self.tables) else WITHOUT_FOLDS
        if table.kind in SIGNED:
            return ACTIVITY
        known = bool(np.isfinite(table.corrected.pooled[np.triu_indices(len(table.names), 1)]).any())
        return MASKS if known else tuple(each for each in MASKS if each.key not in {"corrected", "chance"})

    @property
    def has_intervals(self) -> bool:
        """Whether numbers of pairs have intervals: over folds, or over seeds if there are enough to see anything."""
        return len(self.tables) >= FEWEST_FOR_BANDS if len(self.tables) > 1 else self.quantities == FISHER

    @property
    def is_judged(self) -> bool:
        """Whether every pair has a verdict of its own: of several seeds, only the study judges."""
        return len(self.tables) == 1 and self.quantities == FISHER


@dataclass
class Module:
    """A module of the network, or all of it."""

    path: tuple[str, ...]
    depth: int
    """Of the roll-up that its numbers are of."""

    layer: str
    """Its name there."""

    children: list[Module] = field(default_factory=list)

    def walk(self, level: int = 1, above: int = 0) -> Iterator[tuple[int, str, Module]]:
        """List it with all below it, each with its level and its name within the module above."""
        yield level, ".".join(self.path[above:]) or WHOLE, self
        for child in self.children:
            yield from child.walk(level + 1, len(self.path))


def island(compared: Sequence[Overlaps]) -> str:
    """Write comparisons as JSON that can stand in a script element: no character of it can end one."""
    text = json.dumps([_columns(each) for each in compared], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(ESCAPES)


def significant(value: float) -> float | None:
    """Round to four significant digits, but never to 1 what is less; undefined is None."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return math.copysign(0.99999, value) if abs(rounded) == 1 and abs(value) < 1 - EXACT else rounded


def _columns(shown: Overlaps) -> dict[str, Any]:
    table, deepest = shown.tables[0], _deepest(shown)
    modules = [*_tree(table, deepest).walk()]
    depths = {module.depth for *_, module in modules}
    rolled = [{depth: each.roll_up(depth) for depth in depths} for each in shown.tables]
    found = [{depth: _records(each) for depth, each in of_depths.items()} for of_depths in rolled]
    pairs = [*combinations(table.names, 2)]
    columns: dict[str, Any] = {
        "title": shown.title,
        "names": [spoken(table, name) for name in table.names],
        "pairs": [spoken_pair(table, pair) for pair in pairs],
        "seeds": len(shown.tables),
        "modules": [".".join(module.path) or WHOLE for *_, module in modules],
        "labels": [label for _, label, _ in modules],
        "levels": [level for level, *_ in modules],
        "merged": deepest < _depth(table),
        "quantities": [],
    }
    for quantity in shown.quantities:
        places: list[tuple[str, str | None]] = [*pairs] if quantity.is_of_pairs else [(n, None) for n in table.names]
        rows = [[_estimate(found, module, quantity.key, place) for place in places] for *_, module in modules]
        column: dict[str, Any] = {
            "key": quantity.key, "title": quantity.title, "range": [quantity.low, quantity.high],
            "mapped": quantity.is_mapped, "of": "pairs" if quantity.is_of_pairs else "footprints",
            "values": [[significant(each[0]) for each in row] for row in rows],
        }  # fmt: skip
        if quantity.is_of_pairs and quantity.is_mapped and shown.has_intervals:
            column |= {
                end: [[significant(each[place]) for each in row] for row in rows]
                for place, end in ((1, "low"), (2, "high"))
            }
        columns["quantities"].append(column)
    if shown.is_judged:
        answers = list(SHORT)
        columns["answers"] = [SHORT[answer] for answer in answers]
        judged = track(modules, "judging every pair for the report", unit="module")
        columns["verdicts"] = [
            [answers.index(rolled[0][module.depth].verdict(pair, layer=_layer(module)).answer) for pair in pairs]
            for *_, module in judged
        ]
    return columns


def _depth(table: OverlapTable) -> int:
    return max(layer.count(".") + 1 for layer in table.layers)


def _deepest(shown: Overlaps) -> int:
    """Choose how deep the network is shown: to its layers, or to blocks of them where these are too many."""
    table = shown.tables[0]
    count = len(table.names)
    depth = _depth(table)
    pairs = math.comb(count, 2)
    per_module = sum(
        count if not each.is_of_pairs else 3 * pairs if each.is_mapped and shown.has_intervals else pairs
        for each in shown.quantities
    )
    most = min(MOST_MODULES, MOST_NUMBERS // max(1, per_module))
    while depth > 1 and sum(len(table.roll_up(each).layers) for each in range(depth + 1)) > most:
        depth -= 1
    return depth


def _tree(table: OverlapTable, deepest: int) -> Module:
    """Arrange the layers as the modules of the network, in its order; a module of a single one is that one."""
    root = Module((), 0, "")
    known: dict[tuple[str, ...], Module] = {(): root}
    owned = set(table.roll_up(deepest).layers)
    for layer in table.roll_up(deepest).layers:
        parts = tuple(layer.split(".")) if layer else ()
        for length in range(1, len(parts) + 1):
            path = parts[:length]
            if path not in known:
                known[path] = Module(path, length, ".".join(path))
                known[path[:-1]].children.append(known[path])
    for path, module in list(known.items()):
        if module.children and ".".join(path) in owned and deepest > len(path):
            module.children.insert(0, Module((*path, OWN), deepest, ".".join(path)))
    _without_chains(root)
    return root


def _without_chains(module: Module) -> None:
    for place, child in enumerate(module.children):
        below = child
        while len(below.children) == 1:
            below = below.children[0]
        module.children[place] = below
        _without_chains(below)


def _layer(module: Module) -> str | None:
    return module.layer if module.path else None


def _records(table: OverlapTable) -> Mapping[tuple[str | None, str, str, str | None], Row]:
    """Find every number by layer (None for all weights together), quantity and footprints."""
    return {
        (None if row.level == "pooled" else row.name, row.quantity, row.a, row.b): row
        for row in table.records()
        if row.level != "layer_mean"
    }


def _estimate(
    found: Sequence[Mapping[int, Mapping[tuple[str | None, str, str, str | None], Row]]],
    module: Module,
    quantity: str,
    place: tuple[str, str | None],
) -> tuple[float, float, float]:
    """Give a number with both ends of its interval: over folds, or over seeds where there are several."""
    rows = [each[module.depth].get((_layer(module), quantity, *place)) for each in found]
    if any(row is None for row in rows):  # a share, of all weights together
        return 1.0, math.nan, math.nan
    values = [row.value for row in rows if row is not None]
    if len(rows) == 1 and rows[0] is not None:
        return values[0], rows[0].low, rows[0].high
    mean = Estimate.over_seeds(values)
    return mean.value, mean.low, mean.high
