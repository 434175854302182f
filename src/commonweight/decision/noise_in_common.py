"""What verdicts of tables ask so that noise in common does not pass for sharing."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from commonweight.decision.verdict import STORED, Need
from commonweight.overlaps.estimate import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.overlaps.table import OverlapTable

NOT_COUNTED = "copies among the rows were not counted"
REMEDY = "give copies one source_row, or equal rows that are independent draws one each"


def distinct_rows(tables: Sequence[OverlapTable], names: Sequence[str]) -> Need:
    """Ask for folds without copies of each other's rows: with them ceilings are too high and intervals too narrow.

    Args:
        tables: Of Fishers, at least one, with the same names.
        names: The footprints that are asked about.

    Returns:
        Met where at most 5 % of the rows have copies in other folds; not where that was not counted.
    """
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
    """Ask for corrected overlaps that can be: none truly exceeds 1, and noise in common drives them there.

    Args:
        tables: Of Fishers, at least one, with the same names.
        pairs: Names of two footprints each.
        layers: Those that are asked about; None stands for all weights pooled.

    Returns:
        Met where no interval of a corrected overlap lies wholly above 1, and where there are no folds. Of several
        overlaps the intervals are wider, by Bonferroni's rule: more seeds shall not make more of them lie there.
    """
    level = 1 - (1 - LEVEL) / (len(tables) * len(pairs) * len(layers))
    folded = tables if all(table.resampled is not None for table in tables) else ()
    for table, (a, b), layer in product(folded, pairs, layers):
        corrected = table.estimate("corrected", a, b, layer)
        if corrected.value - corrected.half_width(level) > 1 + STORED:
            where = f"of {a!r} and {b!r}" + (f" in layer {layer!r}" if layer else "")
            words = f"the corrected overlap {where} lies above 1, {corrected}: noise in common?"
            return Need("at most 1", met=False, found=words)
    return Need("at most 1", met=True, found="no corrected overlap above 1")
