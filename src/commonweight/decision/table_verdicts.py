"""Verdicts of a table of overlaps: which of its overlaps are above their null, and which pair shares more."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from commonweight.decision.noise_in_common import NOT_COUNTED, at_most_1, distinct_rows
from commonweight.decision.verdict import Need, contrast_verdict, null_verdict
from commonweight.errors import UsageError
from commonweight.overlaps.alignment import MOST_LISTED
from commonweight.overlaps.columns import WHOLE
from commonweight.overlaps.fold_ratios import NO_NULL
from commonweight.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.decision.verdict import Verdict
    from commonweight.overlaps.alignment import Reading
    from commonweight.overlaps.fold_ratios import Quantity
    from commonweight.overlaps.table import OverlapTable

Pair = tuple[str, str]

MOSTLY = 0.5
"""Layers without a common start that hold more than this share of a trace make all weights pooled without one."""

LOW_CEILING = 0.8
"""Where a ceiling is lower, corrected overlaps were seen to keep some of the noise: docs/reading.md."""

ALIGNED: Mapping[Reading, bool | None] = {
    "common start": True,
    "no common start": False,
    "unclear": None,
    "not measured": None,
}


class Cell(NamedTuple):
    """What one footprint of a table is of."""

    model: str
    data: str
    rows: str
    """Names the source rows: equal for data sets made from the same ones."""


def overlap_verdict(table: OverlapTable, a: str, b: str, layer: str | None = None) -> Verdict:
    """Say whether an overlap is above its null, the strictest of three permutations.

    Args:
        table: Overlaps of Fishers with folds.
        a: Name of a footprint.
        b: Name of another.
        layer: A layer; None for all weights pooled.

    Returns:
        The verdict on corrected - null, both of different halves of the examples.

    Raises:
        UsageError: If there is no such footprint, both are one, or the table has no folds.
        KeyError: If there is no such layer.
    """
    _check_two(table, (a, b))
    difference = table.estimate("above_null", a, b, layer)
    needs = table_needs([table], [(a, b)], layer)
    earlier = () if table.over_folds.has_null else (NO_NULL,)
    return null_verdict(
        difference,
        aligned=aligned([table], [(a, b)], layer),
        effective_examples=effective([table], [(a, b)], layer),
    ).asking(
        [need for need in needs if need.found != NOT_COUNTED],
        (
            *(need.found for need in needs if need.found == NOT_COUNTED),
            *earlier,
            *beware([table], [(a, b)], layer),
        ),
    )


def pairs_verdict(
    table: OverlapTable,
    first: Pair,
    second: Pair,
    layer: str | None = None,
    *,
    same_rows: bool,
    of: Quantity = "corrected",
) -> Verdict:
    """Say whether one pair of footprints shares more than another.

    Args:
        table: Overlaps of Fishers with folds.
        first: Names of two footprints.
        second: Names of two others.
        layer: A layer; None for all weights pooled.
        same_rows: Whether both pairs were measured on the same source rows. A table does not know: see
            :func:`same_rows`.
        of: Which overlap, as ``table.estimate`` takes it. Of Fishers corrected ones, extrapolated or less their
            null decide, raw ones do not: noise lowers them, and not all alike.

    Returns:
        The verdict on first - second.

    Raises:
        UsageError: If there is no such footprint, a pair is one footprint twice, the table has no folds for what is
            asked, or ``same_rows`` is no bool.
        KeyError: If there is no such layer.

    Example:
        >>> import torch
        >>> from commonweight import fisher, overlap
        >>> rows = (torch.randn(200, 40), torch.randint(2, (200,)))
        >>> prints = {name: fisher(torch.nn.Linear(40, 20), [rows], folds=8) for name in "abc"}
        >>> found = pairs_verdict(overlap(prints), ("a", "b"), ("a", "c"), same_rows=True)
        >>> found.answer, found.lacking[0].found
        ('cannot say', 'no common start')
    """
    pairs = (first, second)
    _check_two(table, *pairs)
    return contrast_verdict(
        table.contrast(first, second, of, layer),
        same_rows=same_rows,
        aligned=aligned([table], pairs, layer),
        noise_taken_out=noise_taken_out(table, of),
        effective_examples=effective([table], pairs, layer),
    ).asking(table_needs([table], pairs, layer), beware([table], pairs, layer))


def aligned(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layer: str | None = None) -> bool | None:
    """Tell whether the models of every pair have a common start.

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layer: The layer that is asked about: a freshly drawn head has none though the models have. None for all
            weights pooled, which have none either where layers without one hold most of the trace.

    Returns:
        True if all have one in every table, False if any has none, None where that is unclear or not measured.
    """
    readings = set()
    for table in tables:
        members = None if layer is None else table.members[layer]
        readings |= {ALIGNED[table.alignment.reading(*pair, members)] for pair in pairs}
        if layer is None and _strange(table, pairs)[1] > MOSTLY:
            readings.add(False)
    return False if False in readings else None if None in readings else True


def beware(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layer: str | None = None) -> tuple[str, ...]:
    """Say what to read beside a verdict of tables: weights not compared, layers without a common start, low ceilings.

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layer: The layer that is asked about; None for all weights pooled.

    Returns:
        Sentences; none if there is nothing to say.
    """
    said = []
    if most := max(len(table.left_out) for table in tables):
        said.append(f"of the common parameters only, {most} left out")
    readings = {table.alignment.reading(*pair) for table in tables for pair in pairs}
    if layer is None and readings == {"common start"}:
        layers, share = max((_strange(table, pairs) for table in tables), key=lambda found: found[1])
        if layers:
            rest = f" and {len(layers) - MOST_LISTED} more" if len(layers) > MOST_LISTED else ""
            listed = f"{', '.join(each or WHOLE for each in layers[:MOST_LISTED])}{rest}"
            said.append(f"no common start in {listed}, which hold up to {share:.0%} of a trace")
    folded = [table for table in tables if table.resampled is not None]
    ceilings = [table.ceiling.pooled if layer is None else table.ceiling.by_layer[layer] for table in folded]
    known = [float(each[place]) for each in ceilings for place in _places(tables[0], pairs)]
    if (least := min((each for each in known if not math.isnan(each)), default=1.0)) < LOW_CEILING:
        said.append(f"a ceiling of {number(least, 2)} leaves some noise in")
    return tuple(said)


def noise_taken_out(table: OverlapTable, of: Quantity) -> bool | None:
    """Tell whether the noise of finite samples is taken out of a kind of overlap.

    Args:
        table: The table.
        of: Which overlap, as ``table.estimate`` takes it.

    Returns:
        True of corrected overlaps of Fishers, extrapolated or less their null, False of others; None of masks and
        activities, of which it is not asked.
    """
    return of in {"corrected", "extrapolated", "above_null"} if table.kind == "fisher" else None


def effective(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layer: str | None = None) -> list[float] | None:
    """Collect the effective examples of every Fisher behind some overlaps.

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layer: The layer that is asked about, whose own count; None for all weights pooled.

    Returns:
        Of each table and footprint, nan where not measured; None of masks and activities.
    """
    if tables[0].kind != "fisher":
        return None
    return [table.effective_of(name, layer) for table in tables for name in _behind(pairs)]


def table_needs(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layer: str | None = None) -> tuple[Need, ...]:
    """Ask what only a table knows: are a pair two footprints, have all one label rule, is there noise in common?

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layer: The layer that is asked about; None for all weights pooled.

    Returns:
        The needs, met or not; those about noise in common of Fishers only.
    """
    same = sorted({pair for table in tables for pair in pairs if table.one_and_the_same(*pair)})
    listed = ", ".join(f"{a} and {b}" for a, b in same)
    rules = sorted({str(table.label_rules[name] or "not stated") for table in tables for name in _behind(pairs)})
    return (
        Need(
            "two footprints",
            not same,
            f"the two footprints are one and the same ({listed})" if same else "the two footprints differ",
        ),
        Need(
            "same label rule",
            len(rules) == 1,
            f"label rule {rules[0]}" if len(rules) == 1 else f"label rules differ ({', '.join(rules)})",
        ),
        *(
            (distinct_rows(tables, _behind(pairs)), at_most_1(tables, pairs, layer))
            if tables[0].kind == "fisher"
            else ()
        ),
    )


def contrasts_of(cells: Mapping[str, Cell]) -> tuple[tuple[Pair, Pair], ...]:
    """List the contrasts of a grid of models and data that differ in one thing.

    Two models on one data set against the same two on another; against one of them and a third on the same; one model
    on two data sets against another model on the same two; against one of them and a third in the same model.

    Args:
        cells: Footprint -> what it is of.

    Returns:
        Two pairs each; those of the same source rows come first, since the others decide nothing.

    Example:
        >>> grid = {f"{m}/{d}": Cell(m, d, d) for m in "ab" for d in "xy"}
        >>> for first, second in contrasts_of(grid):
        ...     print(*first, "against", *second)
        a/x a/y against b/x b/y
        a/x b/x against a/y b/y
    """
    pairs = [pair for pair in combinations(cells, 2) if _kind(cells, pair)]
    found = [(first, second) for first, second in combinations(pairs, 2) if _belong(cells, first, second)]
    return tuple(sorted(found, key=lambda contrast: not same_rows(cells, *contrast)))


def same_rows(cells: Mapping[str, Cell], first: Pair, second: Pair) -> bool:
    """Tell whether two pairs were measured on the same source rows.

    Args:
        cells: Footprint -> what it is of.
        first: Names of two footprints.
        second: Names of two others.

    Returns:
        Whether the source rows behind one pair are those behind the other.

    Raises:
        UsageError: If a footprint is none of them.
    """
    if unknown := [name for name in (*first, *second) if name not in cells]:
        raise UsageError(f"no footprint {unknown[0]!r} among {', '.join(map(repr, cells))}")
    return {cells[name].rows for name in first} == {cells[name].rows for name in second}


def _kind(cells: Mapping[str, Cell], pair: Pair) -> str:
    """What the two of a pair differ in, if that is one thing."""
    a, b = (cells[name] for name in pair)
    if (a.model == b.model) == (a.data == b.data):
        return ""
    return "models" if a.data == b.data else "data"


def _belong(cells: Mapping[str, Cell], first: Pair, second: Pair) -> bool:
    kind = _kind(cells, first)
    if kind != _kind(cells, second):
        return False
    models = [{cells[name].model for name in pair} for pair in (first, second)]
    data = [{cells[name].data for name in pair} for pair in (first, second)]
    differ, stay = (models, data) if kind == "models" else (data, models)
    return differ[0] == differ[1] or (stay[0] == stay[1] and len(differ[0] & differ[1]) == 1)


def _check_two(table: OverlapTable, *pairs: Pair) -> None:
    for a, b in pairs:
        if a == b:
            raise UsageError(
                f"a verdict is on two footprints of {', '.join(map(repr, table.names))}, and {a!r} against itself says "
                "nothing about sharing: name two different ones"
            )


def _strange(table: OverlapTable, pairs: Sequence[Pair]) -> tuple[list[str], float]:
    """Layers in which the models of a pair have no common start, and their largest share of a footprint's trace."""
    layers = [
        layer
        for layer, members in table.members.items()
        if any(table.alignment.reading(*pair, members) == "no common start" for pair in pairs)
    ]
    places = _places(table, pairs)
    shares = np.sum([np.nan_to_num(table.trace_share[layer])[places] for layer in layers], axis=0)
    return layers, float(np.max(shares, initial=0.0))


def _places(table: OverlapTable, pairs: Sequence[Pair]) -> list[int]:
    return [table.names.index(name) for name in _behind(pairs)]


def _behind(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))
