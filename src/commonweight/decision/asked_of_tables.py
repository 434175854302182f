"""What verdicts ask of tables of overlaps: everything behind some of their numbers, in one layer or in several."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.decision.noise_in_common import at_most_1, distinct_rows
from commonweight.decision.verdict import Need, contrast_verdict
from commonweight.errors import UsageError, check_kind
from commonweight.overlaps.alignment import MOST_LISTED
from commonweight.overlaps.columns import WHOLE
from commonweight.overlaps.common_start import strange_layers
from commonweight.overlaps.derived import check_names
from commonweight.overlaps.table import OverlapTable
from commonweight.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.decision.verdict import Verdict
    from commonweight.overlaps.alignment import Reading
    from commonweight.overlaps.estimate import Estimate
    from commonweight.overlaps.fold_ratios import Quantity

Pair = tuple[str, str]
Layers = tuple[str | None, ...]
"""Those that are asked about; None stands for all weights pooled."""

WHOLE_NETWORK: Layers = (None,)

LOW_CEILING = 0.8
"""Where a ceiling is lower, corrected overlaps were seen to keep some of the noise: docs/reading.md."""

NO_START = "no common start"
ALIGNED: Mapping[Reading, bool | None] = {
    "common start": True,
    "no common start": False,
    "unclear": None,
    "not measured": None,
}


def judged(
    difference: Estimate,
    tables: Sequence[OverlapTable],
    pairs: Sequence[Pair],
    layers: Layers = WHOLE_NETWORK,
    *,
    of: Quantity,
    same_rows: bool,
    needs: Sequence[Need] = (),
    also: Sequence[str] = (),
    controls: Mapping[str, str | Estimate] | None = None,
) -> Verdict:
    """Say whether one side of a difference of overlaps of tables shares more.

    Args:
        difference: First - second.
        tables: Behind it, at least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about.
        of: Which overlap, as ``table.estimate`` takes it.
        same_rows: Whether both sides were measured on the same source rows.
        needs: What else it takes.
        also: What else to read beside it.
        controls: What to show beside it.

    Returns:
        The verdict.

    Raises:
        UsageError: If ``same_rows`` is no bool.
    """
    verdict = contrast_verdict(
        difference,
        same_rows=same_rows,
        aligned=aligned(tables, pairs, layers),
        noise_taken_out=_noise_taken_out(tables[0], of),
        effective_examples=effective(tables, pairs, layers),
        controls=controls,
    )
    return told(verdict, tables, pairs, layers, [*table_needs(tables, pairs, layers), *needs], also)


def told(
    verdict: Verdict,
    tables: Sequence[OverlapTable],
    pairs: Sequence[Pair],
    layers: Layers,
    needs: Sequence[Need],
    also: Sequence[str] = (),
) -> Verdict:
    """Add to a verdict what else it takes, and what to read beside it, in one sentence each.

    Args:
        verdict: Of an estimate of these tables.
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about.
        needs: What else it takes.
        also: What else to read beside it.

    Returns:
        The verdict; where it has to do without a common start because of some layers, it names them.
    """
    strange = _strange(tables, pairs, layers)
    if strange and NO_START in verdict.reason:
        named = tuple(replace(need, found=strange) if need.name == "common start" else need for need in verdict.needs)
        verdict = replace(verdict, needs=named, reason=verdict.reason.replace(NO_START, strange, 1))
        strange = ""
    beware = [_left_out(tables), strange, _low_ceiling(tables, pairs, layers)]
    return verdict.asking(needs, [*filter(None, beware), *also])


def aligned(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK) -> bool | None:
    """Tell whether the models of every pair have a common start in every layer.

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about: a freshly drawn head has none though the models have.

    Returns:
        True if all have one in every table, False if any has none, None where that is unclear or not measured.
    """
    readings = {ALIGNED[table.common_start(*pair, layer)] for table in tables for pair in pairs for layer in layers}
    return False if False in readings else None if None in readings else True


def effective(
    tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK
) -> list[float] | None:
    """Collect the effective examples of every Fisher behind some overlaps.

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about, each with a count of its own.

    Returns:
        Of each table, footprint and layer, nan where not measured; None of masks and activities.
    """
    if tables[0].kind != "fisher":
        return None
    return [table.effective_of(name, layer) for table in tables for name in _behind(pairs) for layer in layers]


def table_needs(
    tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK
) -> tuple[Need, ...]:
    """Ask what only a table knows: are a pair two footprints, have all one label rule, is there noise in common?

    Args:
        tables: At least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about.

    Returns:
        The needs, met or not; those about noise in common of Fishers only.
    """
    same = sorted({pair for table in tables for pair in pairs if table.one_and_the_same(*pair)})
    listed = ", ".join(f"{a!r} and {b!r}" for a, b in same)
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
            (distinct_rows(tables, _behind(pairs)), at_most_1(tables, pairs, layers))
            if tables[0].kind == "fisher"
            else ()
        ),
    )


def check_pairs(table: OverlapTable, *pairs: Pair) -> None:
    """Check that a verdict is asked of pairs of two different footprints.

    Args:
        table: The table.
        pairs: What was given.

    Raises:
        UsageError: If the table is none, or a pair is no pair of names, or names one footprint twice.
    """
    check_kind("table", table, OverlapTable, "compute one with overlap({'a': f_a, 'b': f_b})")
    check_names(table.names, *pairs)
    for pair in pairs:
        if pair[0] == pair[1]:
            raise UsageError(
                f"a verdict is on two footprints of {', '.join(map(repr, table.names))}, and {pair[0]!r} against "
                "itself says nothing about sharing: name two different ones"
            )


def _noise_taken_out(table: OverlapTable, of: Quantity) -> bool | None:
    """Corrected overlaps of Fishers, extrapolated or less their null; of masks and activities it is not asked."""
    return of in {"corrected", "extrapolated", "above_null"} if table.kind == "fisher" else None


def _left_out(tables: Sequence[OverlapTable]) -> str:
    most = max(len(table.left_out) for table in tables)
    return f"of the common parameters only, {most} left out" if most else ""


def _strange(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers) -> str:
    """Name layers without a common start of models that have one, among those that are asked about together."""
    if {table.alignment.reading(*pair) for table in tables for pair in pairs} != {"common start"}:
        return ""
    every = [strange_layers(table, *pair, layer) for table in tables for pair in pairs for layer in layers]
    names = tuple(dict.fromkeys(name for found in every for name in found.layers))
    if not names:
        return ""
    listed = [repr(name) if name else WHOLE for name in names[:MOST_LISTED]]
    rest = [f"{len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    *head, last = [*listed, *rest]
    which, hold = (f"layers {', '.join(head)} and {last}", "hold") if head else (f"layer {last}", "holds")
    share = max(found.share for found in every)
    return f"{NO_START} in {which}" + (f", which {hold} up to {share:.0%} of a trace" if share < 1 else "")


def _low_ceiling(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers) -> str:
    ceilings = [
        (table.ceiling.pooled if layer is None else table.ceiling.by_layer[layer])[table.names.index(name)]
        for table in tables
        if table.resampled is not None
        for layer in layers
        for name in _behind(pairs)
    ]
    least = min((float(each) for each in ceilings if not math.isnan(each)), default=1.0)
    return f"a ceiling of {number(least, 2)} leaves some noise in" if least < LOW_CEILING else ""


def _behind(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))
