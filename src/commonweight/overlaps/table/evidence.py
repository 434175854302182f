"""Evidence for verdicts: what tables of overlaps know of a number that is made of some of their overlaps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.compatible import check_names
from commonweight.verdicts.evidence import Corrected, Evidence
from commonweight.verdicts.verdict import flag, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.alignment import Reading
    from commonweight.overlaps.table.numbers import Quantity
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

ALIGNED: Mapping[Reading, bool | None] = {
    "shared initialisation": True,
    "no shared initialisation": False,
    "unclear": None,
    "not measured": None,
}


class Place(NamedTuple):
    """Where an overlap stands."""

    table: Any
    """An OverlapTable, whose method ``verdict`` calls this module."""

    pair: Pair
    layer: str | None
    """None is all weights pooled."""


def evidence(estimate: Estimate, places: Sequence[Place], of: Quantity, *, same_rows: bool | None) -> Evidence:
    """Gather the facts behind a difference of overlaps; without ``same_rows`` behind one overlap less its null."""
    is_fisher = places[0].table.kind in IMPORTANCES
    behind = [(table, name, layer) for table, pair, layer in places for name in pair]
    related = all(table.alignment.reading(*pair) == "shared initialisation" for table, pair, _ in places)
    strange = [table.strange_layers(*pair, layer) for table, pair, layer in places if related]
    folded = all(table.resampled is not None for table, _, _ in places)
    return Evidence(
        estimate=estimate,
        single=same_rows is None,
        aligned=tuple(ALIGNED[table.shared_initialisation(*pair, layer)] for table, pair, layer in places),
        effective_sample_size=tuple(table.effective_sample_size_of(name, layer) for table, name, layer in behind)
        if is_fisher
        else None,
        same_rows=same_rows,
        noise_taken_out=of not in {"raw", "null"} if is_fisher else None,
        one_and_the_same=tuple(sorted({pair for table, pair, _ in places if table.one_and_the_same(*pair)})),
        rows=tuple((name, table.rows.get(name)) for table, name, _ in behind) if is_fisher else None,
        corrected=tuple(
            Corrected(pair, layer, table.estimate("corrected", *pair, layer)) for table, pair, layer in places if folded
        )
        if is_fisher
        else None,
        left_out=max(len(table.left_out) for table, _, _ in places),
        strange=tuple(dict.fromkeys(layer for found in strange for layer in found.layers)),
        strange_share=max((found.share for found in strange), default=0.0),
        noise_ceilings=tuple(
            _noise_ceiling(table, name, layer) for table, name, layer in behind if table.resampled is not None
        ),
    )


def verdict(
    table: Any,
    first: Pair,
    second: Pair | None,
    layer: str | None,
    layers: tuple[str, str] | None,
    same_rows: bool | None,
    of: Quantity,
) -> Verdict:
    """Judge one pair, two pairs, or one pair in two layers, for ``OverlapTable.verdict``."""
    pairs = (first,) if second is None else (first, second)
    check_names(table.names, *pairs)
    for pair in pairs:
        if pair[0] == pair[1]:
            raise UsageError(
                f"a verdict is on two footprints of {', '.join(map(repr, table.names))}, and {pair[0]!r} against "
                "itself says nothing about sharing: name two different ones"
            )
    if layers is not None:
        if second is not None or layer is not None:
            raise UsageError("two layers are compared for one pair: leave out the second pair and layer")
        return _of_layers(table, first, layers)
    places = [Place(table, pair, layer) for pair in pairs]
    if second is None:
        beyond = table.estimate("above_null", *first, layer)
        return judge(evidence(beyond, places, "above_null", same_rows=None))
    same_rows = flag("same_rows", same_rows)
    return judge(evidence(table.contrast(first, second, of, layer), places, of, same_rows=same_rows))


def _of_layers(table: Any, pair: Pair, layers: tuple[str, str]) -> Verdict:
    if isinstance(layers, str) or len(set(layers)) != 2 or not all(isinstance(layer, str) for layer in layers):
        raise UsageError(
            f"expected the names of two different layers, such as layers=('0', '2'), got {layers!r}; there are "
            f"{', '.join(map(repr, table.layers))}"
        )
    first, second = layers
    corrected, beyond = (
        table.estimate(of, *pair, first) - table.estimate(of, *pair, second) for of in ("corrected", "above_null")
    )
    known = evidence(corrected, [Place(table, pair, layer) for layer in layers], "corrected", same_rows=True)
    i, j = (table.names.index(name) for name in pair)
    one_network = (pair,) if table.alignment.distance[i, j] == 0 else ()
    return judge(replace(known, one_network=one_network, beyond=beyond))


def _noise_ceiling(table: Any, name: str, layer: str | None) -> float:
    levels = table.noise_ceiling
    return float((levels.pooled if layer is None else levels.by_layer[layer])[table.names.index(name)])
