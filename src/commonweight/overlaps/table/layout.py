"""What an overlap table shows, and in which order: its records as finished text cells."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Block, Grid, number
from commonweight.footprints.copies import beware_of_copies
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.footprint import Kind
    from commonweight.overlaps.chance import MaskFacts, Relation
    from commonweight.overlaps.compatible import LeftOut
    from commonweight.overlaps.table.numbers import By, Level, Row

MOST_LEFT_OUT = 10

HEADS = {
    "raw": "overlap",
    "chance": "chance",
    "corrected": "corrected",
    "sign_agreement": "sign agreement",
    "norm_ratio": "norm ratio",
    "density": "density",
    "noise_ceiling": "noise ceiling",
    "null": "null",
    "above_null": "corrected - null",
}
"""Quantity -> what its column is called."""

RAW = (
    "These are raw overlaps: they mix sharing with sampling noise. Noise ceilings and intervals need folds in every "
    "footprint, as from fisher(..., folds=8), and intervals that are not left out."
)
CORRECTED = (
    "Raw overlaps mix sharing with sampling noise. The noise ceiling is the overlap of two halves of the examples of "
    "one and the same Fisher. Corrected is the overlap of different halves, divided by the root of the product of both "
    "noise ceilings; noise can lift it above 1."
)
INTERVALS = (
    "Brackets: 95 % intervals over the examples, by leaving out each of {folds} folds of source rows (jackknife, t "
    "with {degrees} degrees of freedom). They do not cover what another training run would change."
)
NO_INTERVALS = "There are {folds} folds, and intervals need at least 3."
NULL = (
    "The null is what the corrected overlap would be if entries, rows or columns of one Fisher were permuted within "
    "each parameter: the largest of the three, which is named. It also comes from different halves of the examples, so "
    "compare it with corrected, not with raw."
)
INDEPENDENT = (
    "Chance is the Jaccard index expected of independent masks of the same densities (pooled: a ratio of summed "
    "expectations); corrected is (overlap - chance) / (1 - chance)."
)
SHARED = (
    "The scores of {pairs} started from the same draw, so these masks agree in most bits before any training, and the "
    "closed form for chance does not hold. Measure the bits that flipped, with supermask_footprint(net, task, "
    "flipped=True), beside a control task with random labels."
)
SHARED_FLIPPED = (
    "The bits of {pairs} flipped from the same draw of scores. Scores that start near the threshold flip first, "
    "whatever the task, so the closed form for chance does not hold. Measure chance by a control task with random "
    "labels."
)
MOVED = (
    "Among {pairs}, the scores of one were moved towards those of another, or both towards those of a third. So these "
    "masks agree by construction, and the closed form for chance does not hold. Compare tasks that were trained "
    "without transfer."
)
OF_CHANGES = (
    "Sign agreement is the share of the weights that both models moved in one direction, each counted by the product "
    "of how far they moved it; unrelated changes are at about 0.5. The norm ratio is the length of the change of the "
    "first footprint of a pair over that of the second.",
)
NOT_STATED = "The footprints of {pairs} do not say which draw their scores started from, so chance is not known."


class Records:
    """The records of a table by what they are of, as cells."""

    def __init__(self, rows: Sequence[Row], names: tuple[str, ...], layers: int, by: By, decimals: int) -> None:
        self.names, self.layers, self.by, self.decimals = names, layers, by, decimals
        self.pairs = list(combinations(names, 2))
        self._found = {(row.level, row.name, row.quantity, row.a, row.b): row for row in rows}
        self.groups = tuple(dict.fromkeys(row.name for row in rows if row.level == by))
        self.quantities = {row.quantity for row in rows}
        self.folds = max(row.n for row in rows)

    def value(self, level: Level, quantity: str, a: str, b: str) -> float:
        """Give a total of a pair, in either order."""
        a, b = sorted((a, b), key=self.names.index)
        return self._found[level, "", quantity, a, b].value

    def cell(
        self, level: Level, name: str, quantity: str, a: str, b: str | None = None, *, interval: bool = False
    ) -> str:
        """Write a number, with its interval, or the name of its null; nothing where there is no such number."""
        row = self._found.get((level, name, quantity, a, b))
        if row is None:
            return ""
        if not interval:
            return number(row.value, self.decimals) + (f" ({row.null})" if row.null else "")
        if math.isnan(row.low):
            return beyond(row.value, self.decimals)
        low, high = (beyond(end, self.decimals) for end in (row.low, row.high))
        return f"{beyond(row.value, self.decimals)} [{low}, {high}]"

    def head(self, quantity: str, *, interval: bool = False) -> str:
        """Name a column."""
        return HEADS[quantity] + (" [95 %]" if interval and self.folds else "")


def beyond(value: float, decimals: int) -> str:
    """Write as :func:`number` what may lie beyond 1: just above 1 is not 1."""
    text = number(value, decimals)
    return f">{text}" if 1 + 1e-12 < value < math.inf and float(text) == 1 else text


def overlap_blocks(records: Records, kind: Kind) -> list[Block]:
    """Lay out overlaps: of two footprints one grid with both totals; of more, matrices of totals, and grids."""
    together = [_together(records)] if "noise_ceiling" in records.quantities else []
    if len(records.names) == 2:
        return [_two(records, kind), *together]
    chance = [records.value("pooled", "chance", *pair) for pair in records.pairs if "chance" in records.quantities]
    has_chance = not all(map(math.isnan, chance))
    blocks: list[Block] = [_title(records.names, kind), _matrix(records, "Pooled", "pooled", "raw")]
    if has_chance:
        blocks.append(_matrix(records, "Pooled, by chance", "pooled", "chance"))
        blocks.append(_matrix(records, "Pooled, corrected for chance", "pooled", "corrected"))
    blocks += together
    blocks.append(_matrix(records, "Layer mean (number of layers)", "layer_mean", "raw"))
    blocks.append(_of_pairs(records, f"By {records.by}", "raw"))
    if has_chance:
        blocks.append(_of_pairs(records, f"Corrected for chance, by {records.by}", "corrected"))
    if "sign_agreement" in records.quantities:
        blocks.append(_of_pairs(records, f"Sign agreement, by {records.by}", "sign_agreement"))
        blocks.append(_of_pairs(records, f"Norm ratio, by {records.by}", "norm_ratio"))
    if "noise_ceiling" in records.quantities:
        blocks.append(_of_pairs(records, f"Corrected [95 %], by {records.by}", "corrected", interval=True))
        blocks.append(_of_pairs(records, f"Null, by {records.by}", "null"))
    share = MEASURES[kind].share
    for quantity, words in (("density", "density"), ("noise_ceiling", "noise ceiling"), ("trace_share", share)):
        if quantity in records.quantities:
            blocks.append(_of_footprints(records, f"{words[0].upper()}{words[1:]} by {records.by}", quantity))
    return blocks


def _title(names: tuple[str, ...], kind: Kind) -> str:
    *most, last = names
    return f"{MEASURES[kind].words} of {', '.join(most)} and {last}"


def _two(records: Records, kind: Kind) -> Grid:
    a, b = records.names
    columns: list[tuple[str, str, str, str | None, bool]] = []
    for quantity in (
        *("raw", "sign_agreement", "norm_ratio", "chance", "corrected"),
        *("density", "noise_ceiling", "null", "trace_share"),
    ):
        if quantity not in records.quantities:
            continue
        if quantity in {"density", "noise_ceiling", "trace_share"}:
            words = MEASURES[kind].share if quantity == "trace_share" else HEADS[quantity]
            columns += [(f"{words}, {name}", quantity, name, None, False) for name in (a, b)]
        else:
            interval = quantity == "corrected"
            columns.append((records.head(quantity, interval=interval), quantity, a, b, interval))

    def row(level: Level, name: str) -> list[str]:
        return [records.cell(level, name, of, x, y, interval=interval) for _, of, x, y, interval in columns]

    defined = records.value("layer_mean", "layers", a, b)
    return Grid(
        _title(records.names, kind),
        (records.by, *(head for head, *_ in columns)),
        tuple((name or WHOLE, *row(records.by, name)) for name in records.groups),
        (
            ("pooled", *row("pooled", "")),
            (f"layer mean ({defined:.0f} of {records.layers} layers)", *row("layer_mean", "")),
        ),
    )


def _together(records: Records) -> Grid:
    """Lay out all that is known of every pair of Fishers with folds, of all weights together."""

    def cells(a: str, b: str) -> list[str]:
        raw, corrected, above = (
            records.cell("pooled", "", of, a, b, interval=True) for of in ("raw", "corrected", "above_null")
        )
        noise_ceilings = " and ".join(records.cell("pooled", "", "noise_ceiling", name) for name in (a, b))
        return [raw, corrected, noise_ceilings, records.cell("pooled", "", "null", a, b), above]

    raw, corrected, above = (records.head(of, interval=True) for of in ("raw", "corrected", "above_null"))
    return Grid(
        "All weights together",
        ("pair", raw, corrected, "noise ceilings", "null", above),
        tuple((f"{a} and {b}", *cells(a, b)) for a, b in records.pairs),
    )


def _matrix(records: Records, title: str, level: Level, quantity: str) -> Grid:
    def entry(a: str, b: str) -> str:
        text = number(records.value(level, quantity, a, b), records.decimals)
        return text if level == "pooled" else f"{text} ({records.value(level, 'layers', a, b):.0f})"

    names = records.names
    return Grid(title, ("", *names), tuple((a, *(entry(a, b) for b in names)) for a in names))


def _of_pairs(records: Records, title: str, quantity: str, *, interval: bool = False) -> Grid:
    def row(level: Level, name: str) -> list[str]:
        return [records.cell(level, name, quantity, a, b, interval=interval) for a, b in records.pairs]

    return Grid(
        title,
        (records.by, *(f"{a} and {b}" for a, b in records.pairs)),
        tuple((name or WHOLE, *row(records.by, name)) for name in records.groups),
        (("pooled", *row("pooled", "")),),
    )


def _of_footprints(records: Records, title: str, quantity: str) -> Grid:
    def row(level: Level, name: str) -> list[str]:
        return [records.cell(level, name, quantity, footprint) for footprint in records.names]

    has_total = quantity != "trace_share"
    return Grid(
        title,
        (records.by, *records.names),
        tuple((name or WHOLE, *row(records.by, name)) for name in records.groups),
        (("pooled", *row("pooled", "")),) if has_total else (),
    )


def footprint_blocks(
    records: Records,
    kind: Kind,
    counts: Mapping[str, int],
    effective: Mapping[str, float],
    fisher_types: Mapping[str, str | None],
    masks: MaskFacts | None,
) -> list[Block]:
    """Say what each footprint is of."""
    counted = any(counts.values())
    if masks is not None:
        head = ("footprint", "bits", "density", "score initialisation", *(("examples",) if counted else ()))
        rows = [
            (
                name,
                "flipped" if masks.flipped[name] else "mask",
                records.cell("pooled", "", "density", name),
                _start(masks, name),
                *((str(counts[name]),) if counted else ()),
            )
            for name in records.names
        ]
        return [Grid("The footprints", head, tuple(rows))]
    is_fisher = kind in IMPORTANCES
    if not is_fisher and not counted:
        return []
    head = ("footprint", "examples", "effective sample size", *(("Fisher type",) if is_fisher else ()))
    rows = [
        (
            name,
            str(counts[name]),
            DASH if math.isnan(effective[name]) else f"{effective[name]:.1f}",
            *((fisher_types[name] or DASH,) if is_fisher else ()),
        )
        for name in records.names
    ]
    return [Grid("The footprints", head, tuple(rows))]


def _start(masks: MaskFacts, name: str) -> str:
    """Tell which draw scores started from, and towards which tasks they were moved."""
    moved = f", moved towards {', '.join(masks.moved[name])}" if masks.moved[name] else ""
    return f"{masks.starts[name] or DASH}{moved}"


def beware_of_few(effective: Mapping[str, float]) -> list[str]:
    """Warn of Fishers in which a few examples carry the trace: one sentence, or none."""
    few = [name for name, found in effective.items() if found < SMALLEST_EFFECTIVE]
    if not few:
        return []
    return [f"Effective sample size below {SMALLEST_EFFECTIVE}: {', '.join(few)}. Such Fishers decide nothing."]


def copies(rows: Mapping[str, RowCounts]) -> list[str]:
    """Warn of rows with copies in other folds, footprint by footprint."""
    return [f"{name}: {beware}." for name, counts in rows.items() if (beware := beware_of_copies(counts))]


def fold_sentences(folds: int) -> list[str]:
    """Say what the numbers of Fishers are."""
    if not folds:
        return [RAW]
    intervals = INTERVALS if folds > 2 else NO_INTERVALS
    return [CORRECTED, intervals.format(folds=folds, degrees=folds - 1), NULL]


def chance_sentences(names: tuple[str, ...], masks: MaskFacts) -> list[str]:
    """Say what chance is, and for which pairs it is not known and why."""
    found: dict[Relation, list[tuple[str, str]]] = {"independent": [], "shared": [], "moved": [], "not stated": []}
    for pair in combinations(names, 2):
        found[masks.relation(*pair)].append(pair)
    words: dict[Relation, str] = {
        "shared": SHARED_FLIPPED if any(masks.flipped.values()) else SHARED,
        "moved": MOVED,
        "not stated": NOT_STATED,
    }
    return [INDEPENDENT] * bool(found["independent"]) + [
        sentence.format(pairs=_listed(names, found[relation]))
        for relation, sentence in words.items()
        if found[relation]
    ]


def _listed(names: tuple[str, ...], pairs: list[tuple[str, str]]) -> str:
    members = [name for name in names if any(name in pair for pair in pairs)]
    if len(pairs) == len(members) * (len(members) - 1) // 2:  # every pair of these
        return f"{', '.join(members[:-1])} and {members[-1]}"
    return ", ".join(f"{a} and {b}" for a, b in pairs)


def left_out_sentences(left_out: Sequence[LeftOut]) -> list[str]:
    """Name parameters that were not compared."""
    if not left_out:
        return []
    shown = "; ".join(str(item) for item in left_out[:MOST_LEFT_OUT])
    more = len(left_out) - MOST_LEFT_OUT
    words = f"{len(left_out)} parameter{'s were' if len(left_out) > 1 else ' was'} not compared"
    return [f"{words}: {shown}" + (f"; and {more} more." if more > 0 else ".")]
