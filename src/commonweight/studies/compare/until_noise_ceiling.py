"""How many examples are enough? A Fisher measured on more and more rows, until its noise ceiling is high enough."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.folders import flush
from commonweight.base.text import silent
from commonweight.data.table import Table, row_order
from commonweight.footprints.fold_format import fold_record, needs_of, shortened
from commonweight.footprints.folds import fold_of
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.footprints.joining import joined
from commonweight.overlaps.resampling.noise_ceiling import noise_ceiling
from commonweight.overlaps.table.layout import FEW_EXAMPLES
from commonweight.studies.compare.measure import FOLD_DTYPE, measure, measure_outlook
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.run.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.estimate import Estimate
    from commonweight.base.text import Note
    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.fold_format import Needs
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import MeasureOptions
    from commonweight.studies.run.outlook import Outlook


FIRST = 64
"""Rows of the first step; each step doubles what there is."""


COPIES = 3
"""Footprints on disk at a time: what there was, what was added, and both together."""


KEY = "until_noise_ceiling"
"""Where the metadata of the footprint keep the curve."""


def measure_until(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    target: float,
    *,
    folder: Path,
    final: Path | None = None,
    seed: int | None = None,
    progress: bool = False,
    note: Note = silent,
) -> tuple[Footprint, Convergence]:
    """Measure a Fisher on rows in a seeded order, doubled in every step, until its noise ceiling reaches a target."""
    # It stops where, in two steps in a row, the pooled noise ceiling is at least the target, there are at least 20
    # effective examples, and at most 5 % of the rows have copies in other folds (:attr:`Convergence.is_reached`). No
    # row
    # is measured twice: the Fishers of all steps are joined. The result is that of the rows that ``--examples N
    # --data-seed SEED`` chooses, with the N that was needed. That N depends on what was seen, so the noise ceiling
    # there
    # is optimistic and its interval conditional (:attr:`Convergence.caution`).
    options = _checked(table, options, target, note)
    folds = options.folds or 1
    seed = _seed(table, seed)
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another folder")
    note(until_outlook(loaded, table, options, target, folder=final or folder).sentence())
    order = _order(table, seed)
    in_all = table.identity.get("rows_in_all", len(table))
    found = Convergence(target, (), len(table), in_all)
    with scratch(final or folder, note) as steps:
        whole: Footprint | None = None
        start = 0
        for end in _ends(table, order, folds):
            more = _part(table, sorted(order[start:end]))
            place = steps / f"part-{end}"
            part = measure(loaded, more, options, folder=place, fold_dtype=None, progress=progress, note=note)
            whole = part if whole is None else _together(whole, part, steps / f"whole-{end}")
            point = Point(whole.count, whole.effective_sample_size, noise_ceiling(whole).pooled, whole.rows)
            note(
                f"{end} of {len(table)} examples, {point.effective:.1f} effective: noise ceiling {point.noise_ceiling}"
            )
            found = replace(found, points=(*found.points, point))
            start = end
            if found.is_reached:
                break
        assert whole is not None  # noqa: S101 - a table has rows
        data = whole.metadata["data"] | _identity(table, order[:start], seed)
        facts = {"folds": fold_record(folds, FOLD_DTYPE), "data": data, KEY: found.record()}
        short = tuple(Fold(fold.count, shortened(fold.tensors, FOLD_DTYPE)) for fold in whole.folds)
        whole = replace(whole, folds=short, metadata={**whole.metadata, **facts})
        whole.save(steps / "final").rename(folder)
        flush(folder.parent)
    return Footprint.load(folder), found


def until_outlook(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    target: float,
    *,
    folder: Path,
    note: Note = silent,
) -> Outlook[Needs]:
    """Check what :func:`measure_until` checks, without measuring, and tell what it will take at most."""
    options = _checked(table, options, target, note)
    folds = options.folds or 1
    return measure_outlook(
        loaded, table, options, folder, note, meanwhile=lambda weights: COPIES * needs_of(weights, folds, None).disk
    )


def planned_ends(table: Table, options: MeasureOptions, seed: int | None = None) -> list[int]:
    """Tell after how many rows each step of :func:`measure_until` ends, if none of them is enough."""
    return _ends(table, _order(table, _seed(table, seed)), fold_count([table], options.folds, silent))


def step_ends(source_rows: Sequence[int], folds: int, first: int = FIRST) -> list[int]:
    """Decide after how many rows each step ends: every step holds at least one row of every fold.

    Args:
        source_rows: In the order in which they are taken; all together fill every fold.
        folds: How many folds.
        first: Rows of the first step.

    Returns:
        Numbers of rows, ascending, each about twice the one before; the last is all rows.

    Example:
        >>> step_ends(range(300), 4)
        [64, 128, 256, 300]
    """
    numbers = [fold_of(row, folds) for row in source_rows]
    ends: list[int] = []
    start, wanted = 0, first
    while start < len(numbers):
        end = min(len(numbers), wanted)
        while end < len(numbers) and len(set(numbers[start:end])) < folds:
            end += 1
        if ends and len(set(numbers[start:end])) < folds:
            ends[-1] = end  # too few are left for a step of their own
        else:
            ends.append(end)
        start, wanted = end, 2 * end
    return ends


def _checked(table: Table, options: MeasureOptions, target: float, note: Note) -> MeasureOptions:
    """Check the target, and decide the number of folds."""
    if not 0 < target < 1:
        raise UsageError(f"the noise ceiling to be reached must be above 0 and below 1, such as 0.95, got {target:g}")
    folds = fold_count([table], options.folds, note)
    if folds == 1:
        raise UsageError(
            f"a noise ceiling needs folds, and {table.name} is measured in one piece: give more rows, or {{folds}} of "
            "2 or more",
            folds=None,
        )
    return replace(options, folds=folds)


def _seed(table: Table, asked: int | None) -> int:
    selection = table.identity.get("selection", "all")
    if selection == "all":
        return asked or 0
    own: int = selection["seed"]
    if asked not in {None, own}:
        raise UsageError(
            f"the rows of {table.name} were chosen with seed {own}, so the first of them in the order of seed {asked} "
            f"are no choice of either: leave the seed out, or open the table with seed {asked}"
        )
    return own


def _chosen(table: Table) -> Sequence[int]:
    """Numbers of the table's rows in the whole data set."""
    selection = table.identity.get("selection", "all")
    rows: Sequence[int] = range(len(table)) if selection == "all" else selection["rows"]
    return rows


def _order(table: Table, seed: int) -> list[int]:
    """Positions in the table, in the order in which rows are chosen from the whole data set."""
    position = {row: index for index, row in enumerate(_chosen(table))}
    total = table.identity.get("rows_in_all", len(table))
    return [position[row] for row in row_order(total, seed) if row in position]


def _ends(table: Table, order: Sequence[int], folds: int) -> list[int]:
    return step_ends([table.source_rows[position] for position in order], folds)


def _part(table: Table, positions: list[int]) -> Table:
    rows = [table.source_rows[position] for position in positions]
    return Table(table.name, table.rows.select(positions), rows, table.identity)


def _identity(table: Table, positions: list[int], seed: int) -> dict[str, Any]:
    if len(positions) == len(table):
        return table.identity
    chosen = _chosen(table)
    rows = sorted(chosen[position] for position in positions)
    return table.identity | {"rows_used": len(rows), "selection": {"seed": seed, "rows": rows}}


def _together(whole: Footprint, part: Footprint, place: Path) -> Footprint:
    """Join two footprints on disk; what they took there is free again."""
    facts = dict(part.metadata)
    former = whole.metadata
    facts["generic"] = {**former["generic"], **facts["generic"]}
    facts["unused"] = [name for name in facts["unused"] if name in former["unused"]]
    errors = [each["verified"]["largest_error"] for each in (former, part.metadata)]
    facts["verified"] = {"largest_error": max((error for error in errors if error is not None), default=None)}
    facts["data"] = {**facts["data"], "columns": _columns(former["data"]["columns"], facts["data"]["columns"])}
    joined([whole, part], facts).save(place)
    for former_place in place.parent.iterdir():
        if former_place != place:
            shutil.rmtree(former_place)
    return Footprint.load(place)


def _columns(former: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The columns that were read; the rows that were cut add up."""
    cut = {"rows_cut": former["rows_cut"] + more["rows_cut"]} if "rows_cut" in more else {}
    return {**more, **cut}


PASSED = (
    "Rows were added until the noise ceiling was reached in two steps in a row, so the last value is one that "
    "passed: by "
    "this selection it is too high on average, and its interval holds only given that the measurement stopped there. "
    "It is far too high where a few loud examples carry much of the trace and these rows hold too few of them."
)


NEVER_PASSED = (
    "The measurement would have stopped earlier had the noise ceiling been reached there in two steps in a row: by "
    "this "
    "selection the last value is, if anything, too low on average, and its interval holds only given that."
)


@dataclass(frozen=True)
class Point:
    """What one step came to."""

    examples: int
    effective: float
    """Effective sample size, ``(Σ t)² / Σ t²``; nan for a zero Fisher."""

    noise_ceiling: Estimate
    """Of all weights pooled, over folds."""

    rows: RowCounts | None = None
    """How many rows are distinct, and how many have copies in other folds; None where it was not measured."""

    def is_enough(self, target: float) -> bool:
        """Tell whether the noise ceiling is high enough here; to stop takes two such steps in a row."""
        disjoint = self.rows is None or self.rows.are_disjoint
        return disjoint and self.noise_ceiling.value >= target and self.effective >= FEW_EXAMPLES


@dataclass(frozen=True)
class Convergence:
    """The curve of a measurement that went on until its noise ceiling was high enough, or the data ended."""

    target: float
    points: tuple[Point, ...]
    available: int
    """Rows that could be taken."""

    in_all: int
    """Rows of the data set; more than could be taken where a number of examples was the limit."""

    @property
    def is_reached(self) -> bool:
        """Whether the target is reached in two steps in a row, with 20 effective sample size and few copies in both."""
        # One step is not enough: a loud example in the next may make the same rows agree far less. The first of the two
        # has at most two thirds of the rows of the second, so a last step of a few rows confirms nothing.
        most = 2 * self.points[-1].examples / 3
        before = [point.examples <= most for point in self.points].count(True)
        return before > 0 and all(point.is_enough(self.target) for point in self.points[before - 1 :])

    @property
    def falls(self) -> tuple[tuple[Point, Point], ...]:
        """Steps in a row of which the second has fewer effective sample size than the first, though more rows."""
        return tuple((one, two) for one, two in pairwise(self.points) if two.effective < one.effective)

    @property
    def undefined(self) -> str | None:
        """Why the last noise ceiling is undefined; None where it is defined."""
        last = self.points[-1]
        if not math.isnan(last.noise_ceiling.value):
            return None
        if math.isnan(last.effective):
            return (
                f"the Fisher of all {last.examples} examples is zero: no measured weight changes how probable their "
                "labels are"
            )
        return f"the Fisher of all {last.examples} examples is zero but for one fold, so no two halves can be compared"

    @property
    def caution(self) -> str | None:
        """What stopping by what was seen does to the last noise ceiling; None where it is undefined."""
        return None if self.undefined else PASSED if self.is_reached else NEVER_PASSED

    def record(self) -> dict[str, Any]:
        """Describe it in plain JSON values."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        points = [
            {
                "examples": point.examples,
                "effective_sample_size": plain(point.effective),
                "noise_ceiling": plain(point.noise_ceiling.value),
                "low": plain(point.noise_ceiling.low),
                "high": plain(point.noise_ceiling.high),
                "rows": None if point.rows is None else point.rows._asdict(),
            }
            for point in self.points
        ]
        return {
            "target": self.target,
            "fewest_effective_sample_size": FEW_EXAMPLES,
            "reached": self.is_reached,
            "rows": self.available,
            "rows_in_all": self.in_all,
            "points": points,
            "caution": self.caution,
            "undefined": self.undefined,
        }
