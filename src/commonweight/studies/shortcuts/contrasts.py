r"""The cells of the grid that answer the question, and their contrasts over training seeds.

For two models a and b, each with its own shortcut, with ``O(x, y)`` the overlap of two footprints:

=============  ============================================================================
shared         ``O(a on originals, b on originals)``
unshared       ``O(a on its own conflicting rows, b on its own)``: different inputs
same input, a  ``O(a, b)``, both on the rows that conflict with a's shortcut
same input, b  ``O(a, b)``, both on the rows that conflict with b's shortcut
=============  ============================================================================

``shared − unshared`` is the published contrast. Part of it is an effect of the input, since *unshared* compares models
on different inputs; what remains of it when the input is the same is ``shared − same input``.

With folds both are also taken between corrected overlaps, which sampling noise does not lower. The estimates are over
training seeds; of a single seed with folds, over examples.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from commonweight.base.estimate import Estimate
from commonweight.overlaps.table.evidence import Place, evidence
from commonweight.studies.shortcuts.plan import CONTROLS, ORIGINAL, footprint_name
from commonweight.verdicts.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from commonweight.overlaps.table.table import OverlapTable
    from commonweight.verdicts.evidence import Pair
    from commonweight.verdicts.verdict import Verdict

Of = Literal["raw", "corrected"]
CELLS = ("shared", "unshared", "same input, first", "same input, second")
CONTRASTS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "shared − unshared": ("shared", "unshared"),
    "shared − same input, first": ("shared", "same input, first"),
    "shared − same input, second": ("shared", "same input, second"),
})


def cell_sets(first: str, second: str) -> dict[str, Pair]:
    """Name the sets that the two models of a pair are measured on, in every cell.

    Args:
        first: Code of the first model's shortcut.
        second: That of the second.

    Returns:
        Cell -> the first model's set and the second's.

    Example:
        >>> cell_sets("st", "op")["same input, first"]
        ('st', 'st')
    """
    return {
        "shared": (ORIGINAL, ORIGINAL),
        "unshared": (first, second),
        "same input, first": (first, first),
        "same input, second": (second, second),
    }


def footprint_names(models: Pair, sets: Pair) -> Pair:
    """Name the footprints of two models, each on its set."""
    return footprint_name(models[0], sets[0]), footprint_name(models[1], sets[1])


def have_folds(tables: Sequence[OverlapTable]) -> bool:
    """Tell whether corrected overlaps are known."""
    return all(table.resampled is not None for table in tables)


def pair_estimates(
    tables: Sequence[OverlapTable], shortcuts: Sequence[str], layer: str | None = None, of: Of = "raw"
) -> Mapping[Pair, dict[str, Estimate]]:
    """Collect the cells of every pair of models."""
    return {
        pair: {
            cell: _estimate(tables, footprint_names(pair, sets), layer, of) for cell, sets in cell_sets(*pair).items()
        }
        for pair in combinations(shortcuts, 2)
    }


def pair_verdicts(
    tables: Sequence[OverlapTable],
    rows: Sequence[Mapping[str, str]],
    shortcuts: Sequence[str],
    layer: str | None = None,
    without_shortcut: Collection[str] = (),
) -> Mapping[Pair, dict[str, Verdict]]:
    """Say for every pair of models whether it shares more on originals than elsewhere."""
    # Corrected overlaps decide. Without folds there are none, and raw ones inconclusive: the noise of finite samples
    # lowers them, in every training, and not alike on originals and elsewhere. Beside each verdict stand its controls:
    # the same contrast with the start, the random-label model or, where there is one, the model from an independent
    # initialisation in place of one of the two models (the mean of both ways).
    # They decide nothing; where a contrast is not shown to be larger than a control, its reason says so.
    return {
        pair: {
            name: _verdict(tables, rows, pair, cells, layer, tuple(code for code in pair if code in without_shortcut))
            for name, cells in CONTRASTS.items()
        }
        for pair in combinations(shortcuts, 2)
    }


def _verdict(
    tables: Sequence[OverlapTable],
    rows: Sequence[Mapping[str, str]],
    pair: Pair,
    cells: tuple[str, str],
    layer: str | None,
    not_learned: tuple[str, ...],
) -> Verdict:
    of: Of = "corrected" if have_folds(tables) else "raw"
    sets = [cell_sets(*pair)[cell] for cell in cells]
    sides = [footprint_names(pair, each) for each in sets]
    contrast = _contrast(tables, pair, cells, layer, of)
    controls = {
        f"with {model}": _control(tables, pair, cells, layer, of, model)
        for model in CONTROLS
        if all(footprint_name(model, data) in table.names for table in tables for data in (ORIGINAL, *pair))
    }
    places = [Place(table, side, layer) for table, side in product(tables, sides)]
    same_rows = all(len({named[data] for side in sets for data in side}) == 1 for named in rows)
    known = evidence(contrast, places, of, same_rows=same_rows)
    return judge(replace(known, controls=controls, not_learned=not_learned))


def _contrast(
    tables: Sequence[OverlapTable],
    pair: Pair,
    cells: tuple[str, str],
    layer: str | None,
    of: Of,
    models: Pair | None = None,
) -> Estimate:
    """Subtract two cells of a pair; ``models`` may stand in for its two."""
    sets = cell_sets(*pair)
    first, second = (_estimate(tables, footprint_names(models or pair, sets[cell]), layer, of) for cell in cells)
    return first - second


def _control(
    tables: Sequence[OverlapTable], pair: Pair, cells: tuple[str, str], layer: str | None, of: Of, model: str
) -> Estimate:
    return 0.5 * (
        _contrast(tables, pair, cells, layer, of, (model, pair[1]))
        + _contrast(tables, pair, cells, layer, of, (pair[0], model))
    )


def _estimate(tables: Sequence[OverlapTable], names: Pair, layer: str | None, of: Of) -> Estimate:
    if of == "raw":
        return Estimate.over_seeds([_raw(table, names, layer) for table in tables])
    estimates = [table.estimate(of, *names, layer) for table in tables]
    if len(estimates) == 1:
        return estimates[0]
    return Estimate.over_seeds([found.value for found in estimates])


def _raw(table: OverlapTable, names: Pair, layer: str | None) -> float:
    i, j = (table.names.index(name) for name in names)
    return float((table.pooled if layer is None else table.by_layer[layer])[i, j])
