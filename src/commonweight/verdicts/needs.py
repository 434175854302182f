"""What verdicts ask of tables of overlaps: everything behind some of their numbers, in one layer or in several."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.errors import UsageError, check_kind
from commonweight.base.estimate import LEVEL
from commonweight.base.text import Grid, number
from commonweight.footprints.copies import MOST_COPIED
from commonweight.overlaps.alignment import MOST_LISTED
from commonweight.overlaps.compatible import check_names
from commonweight.overlaps.table.rows import WHOLE
from commonweight.overlaps.table.table import OverlapTable
from commonweight.verdicts.verdict import INCONCLUSIVE, NOT_ABOVE, SMALLEST_EFFECTIVE, STORED, Need, contrast_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.estimate import Estimate
    from commonweight.overlaps.alignment import Reading
    from commonweight.overlaps.table.rows import Quantity
    from commonweight.verdicts.verdict import Verdict


Pair = tuple[str, str]


Layers = tuple[str | None, ...]
"""Those that are asked about; None stands for all weights pooled."""


WHOLE_NETWORK: Layers = (None,)


LOW_NOISE_NOISE_CEILING = 0.8
"""Where a noise ceiling is lower, corrected overlaps were seen to keep some of the noise: docs/reading.md."""


NO_START = "no shared initialisation"


ALIGNED: Mapping[Reading, bool | None] = {
    "shared initialisation": True,
    "no shared initialisation": False,
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
    """Say whether one side of a difference of overlaps of tables shares more."""
    verdict = contrast_verdict(
        difference,
        same_rows=same_rows,
        aligned=aligned(tables, pairs, layers),
        noise_taken_out=_noise_taken_out(tables[0], of),
        effective_sample_size=effective(tables, pairs, layers),
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
    """Add to a verdict what else it takes, and what to read beside it, in one sentence each."""
    strange = _strange(tables, pairs, layers)
    if strange and NO_START in verdict.reason:
        named = tuple(
            replace(need, found=strange) if need.name == "shared initialisation" else need for need in verdict.needs
        )
        verdict = replace(verdict, needs=named, reason=verdict.reason.replace(NO_START, strange, 1))
        strange = ""
    beware = [_left_out(tables), strange, _low_noise_ceiling(tables, pairs, layers)]
    return verdict.asking(needs, [*filter(None, beware), *also])


def aligned(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK) -> bool | None:
    """Tell whether the models of every pair have a shared initialisation in every layer."""
    readings = {
        ALIGNED[table.shared_initialisation(*pair, layer)] for table in tables for pair in pairs for layer in layers
    }
    return False if False in readings else None if None in readings else True


def effective(
    tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK
) -> list[float] | None:
    """Collect the effective sample size of every Fisher behind some overlaps."""
    if tables[0].kind != "fisher":
        return None
    return [
        table.effective_sample_size_of(name, layer) for table in tables for name in _behind(pairs) for layer in layers
    ]


def table_needs(
    tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers = WHOLE_NETWORK
) -> tuple[Need, ...]:
    """Ask what only a table knows: are a pair two footprints, have all one Fisher type, is there noise in common?"""
    same = sorted({pair for table in tables for pair in pairs if table.one_and_the_same(*pair)})
    listed = ", ".join(f"{a!r} and {b!r}" for a, b in same)
    rules = sorted({str(table.fisher_types[name] or "not stated") for table in tables for name in _behind(pairs)})
    return (
        Need(
            "two footprints",
            not same,
            f"the two footprints are one and the same ({listed})" if same else "the two footprints differ",
        ),
        Need(
            "same Fisher type",
            len(rules) == 1,
            f"Fisher type {rules[0]}" if len(rules) == 1 else f"Fisher types differ ({', '.join(rules)})",
        ),
        *(
            (distinct_rows(tables, _behind(pairs)), at_most_1(tables, pairs, layers))
            if tables[0].kind == "fisher"
            else ()
        ),
    )


def check_pairs(table: OverlapTable, *pairs: Pair) -> None:
    """Check that a verdict is asked of pairs of two different footprints."""
    check_kind("table", table, OverlapTable, "compute one with overlap({'a': f_a, 'b': f_b})")
    check_names(table.names, *pairs)
    for pair in pairs:
        if pair[0] == pair[1]:
            raise UsageError(
                f"a verdict is on two footprints of {', '.join(map(repr, table.names))}, and {pair[0]!r} against "
                "itself says nothing about sharing: name two different ones"
            )


def _noise_taken_out(table: OverlapTable, of: Quantity) -> bool | None:
    """Corrected overlaps of Fishers, or less their null; of masks and activities it is not asked."""
    return of in {"corrected", "above_null"} if table.kind == "fisher" else None


def _left_out(tables: Sequence[OverlapTable]) -> str:
    most = max(len(table.left_out) for table in tables)
    return f"of the common parameters only, {most} left out" if most else ""


def _strange(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers) -> str:
    """Name the asked layers that have no shared initialisation though the models have."""
    if {table.alignment.reading(*pair) for table in tables for pair in pairs} != {"shared initialisation"}:
        return ""
    every = [table.strange_layers(*pair, layer) for table in tables for pair in pairs for layer in layers]
    names = tuple(dict.fromkeys(name for found in every for name in found.layers))
    if not names:
        return ""
    listed = [repr(name) if name else WHOLE for name in names[:MOST_LISTED]]
    rest = [f"{len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    *head, last = [*listed, *rest]
    which, hold = (f"layers {', '.join(head)} and {last}", "hold") if head else (f"layer {last}", "holds")
    share = max(found.share for found in every)
    return f"{NO_START} in {which}" + (f", which {hold} up to {share:.0%} of a trace" if share < 1 else "")


def _low_noise_ceiling(tables: Sequence[OverlapTable], pairs: Sequence[Pair], layers: Layers) -> str:
    noise_ceilings = [
        (table.noise_ceiling.pooled if layer is None else table.noise_ceiling.by_layer[layer])[table.names.index(name)]
        for table in tables
        if table.resampled is not None
        for layer in layers
        for name in _behind(pairs)
    ]
    least = min((float(each) for each in noise_ceilings if not math.isnan(each)), default=1.0)
    return f"a noise ceiling of {number(least, 2)} leaves some noise in" if least < LOW_NOISE_NOISE_CEILING else ""


def _behind(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))


class Requirement(NamedTuple):
    """Something a verdict takes."""

    name: str
    demand: str
    """When it is met."""

    contrast: str
    """What a contrast says without it; empty where it is not asked."""

    null: str
    """What a single overlap says without it; empty where it is not asked."""


NEEDS: tuple[Requirement, ...] = (
    Requirement(
        "shortcut learned",
        "both models are at least halfway from a constant answer to all right on their own shortcut (asked of the "
        "study of shortcuts)",
        INCONCLUSIVE,
        "",
    ),
    Requirement(
        "two footprints", "the two of a pair hold different numbers (asked of tables)", INCONCLUSIVE, INCONCLUSIVE
    ),
    Requirement(
        "same Fisher type",
        "every Fisher behind it has the same Fisher type (asked of tables)",
        INCONCLUSIVE,
        INCONCLUSIVE,
    ),
    Requirement(
        "distinct rows",
        f"at most {100 * MOST_COPIED:.0f} % of the rows behind it have copies in other folds, counted (asked of tables "
        "of Fishers; of a single overlap without a count the answer stands, and the reason says so)",
        INCONCLUSIVE,
        INCONCLUSIVE,
    ),
    Requirement(
        "at most 1",
        "no corrected overlap behind it has an interval wholly above 1, which noise in common does (of several wider, "
        "by Bonferroni's rule; asked of tables of Fishers with folds)",
        INCONCLUSIVE,
        INCONCLUSIVE,
    ),
    Requirement(
        "two networks",
        "the weights of the two differ: one network shares all of its own, in every layer (asked of two layers)",
        INCONCLUSIVE,
        "",
    ),
    Requirement(
        "beyond the null too",
        "the interval of the difference of corrected - null excludes 0 on the side of the difference of corrected "
        "overlaps, since layers have nulls of their own (asked of two layers)",
        INCONCLUSIVE,
        "",
    ),
    Requirement("same rows", "both sides were measured on the same source rows", INCONCLUSIVE, ""),
    Requirement(
        "shared initialisation", "the models of each overlap have a shared initialisation, measured", INCONCLUSIVE, ""
    ),
    Requirement(
        "noise taken out",
        "both overlaps of Fishers are corrected: noise lowers raw ones, and not both alike (masks and "
        "activities: not asked)",
        INCONCLUSIVE,
        "",
    ),
    Requirement(
        "effective sample size",
        f"at least {SMALLEST_EFFECTIVE} in every Fisher behind it; of a layer, of that layer (masks and activities: "
        "not "
        "asked)",
        INCONCLUSIVE,
        INCONCLUSIVE,
    ),
    Requirement(
        "interval",
        "at least 3 folds, or 2 seeds, with a finite value in each, and not all equal unless all are 0",
        INCONCLUSIVE,
        INCONCLUSIVE,
    ),
    Requirement(
        "excludes 0", f"the {100 * LEVEL:.0f} % interval; of corrected - null it lies above 0", INCONCLUSIVE, NOT_ABOVE
    ),
)
"""What each verdict takes, in the order in which it is asked. Controls are shown beside, and decide nothing."""


def needs_grid() -> Grid:
    """Lay out what each verdict takes."""
    rows = tuple((need.name, need.demand, need.contrast or "not asked", need.null or "not asked") for need in NEEDS)
    return Grid("What a verdict takes", ("need", "met when", "contrast without it", "single overlap without it"), rows)


NOT_COUNTED = "copies among the rows were not counted"


REMEDY = "give copies one source_row, or equal rows that are independent draws one each"


def distinct_rows(tables: Sequence[OverlapTable], names: Sequence[str]) -> Need:
    """Ask for folds without copies of each other's rows: these raise noise ceilings and narrow intervals."""
    if not all(name in table.rows for table in tables for name in names):
        return Need("distinct rows", met=False, found=NOT_COUNTED)
    name, rows = max(
        ((name, table.rows[name]) for table in tables for name in names), key=lambda found: found[1].copied_share
    )
    if rows.are_disjoint:
        return Need("distinct rows", met=True, found=f"at most {rows.copied_share:.1%} of rows with copies")
    return Need("distinct rows", met=False, found=f"in {name!r} {rows}: {REMEDY}")


def at_most_1(
    tables: Sequence[OverlapTable], pairs: Sequence[tuple[str, str]], layers: Sequence[str | None] = (None,)
) -> Need:
    """Ask for corrected overlaps that can be: none truly exceeds 1, and noise in common drives them there."""
    level = 1 - (1 - LEVEL) / (len(tables) * len(pairs) * len(layers))
    folded = tables if all(table.resampled is not None for table in tables) else ()
    for table, (a, b), layer in product(folded, pairs, layers):
        corrected = table.estimate("corrected", a, b, layer)
        if corrected.value - corrected.half_width(level) > 1 + STORED:
            where = f"of {a!r} and {b!r}" + (f" in layer {layer!r}" if layer else "")
            words = f"the corrected overlap {where} lies above 1, {corrected}: noise in common?"
            return Need("at most 1", met=False, found=words)
    return Need("at most 1", met=True, found="no corrected overlap above 1")
