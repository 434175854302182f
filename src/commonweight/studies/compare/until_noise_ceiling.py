"""How many examples are enough? A Fisher of more and more rows, until its split-half noise ceiling is high enough.

Sums over disjoint rows add, so no row is measured twice: one collector measures the rows of each step, and the noise
ceiling is read off the sums so far. The result is that of the rows that ``--examples N --data-seed SEED`` chooses, with
the N that was needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.text import Note, silent
from commonweight.data.table import Table, row_order
from commonweight.diagonal_fisher.batch import by_fold
from commonweight.diagonal_fisher.collector import Means, Sums
from commonweight.diagonal_fisher.measure import footprint_of, with_bar
from commonweight.footprints.folds import FoldSorted, fold_of, shortened
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.overlaps.resampling.noise_ceiling import noise_ceiling
from commonweight.overlaps.table.layout import FEW_EXAMPLES
from commonweight.studies.compare.measure import FOLD_DTYPE, collector_of, measure_outlook, with_less_memory
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.compare.rows import fold_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.estimate import Estimate
    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.folds import Needs
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import MeasureOptions
    from commonweight.studies.run.outlook import Outlook

FIRST = 64
"""Rows of the first step; each step doubles what there is."""

KEY = "until_noise_ceiling"
"""Where the metadata of the footprint keep the curve."""


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
        """Whether two steps in a row are enough, the first with at most two thirds of the rows of the second."""
        # One step is not enough: a loud example in the next may make the same rows agree far less.
        most = 2 * self.points[-1].examples / 3
        before = [point.examples <= most for point in self.points].count(True)
        return before > 0 and all(point.is_enough(self.target) for point in self.points[before - 1 :])

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
        }


def measure_until(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    target: float,
    *,
    folder: Path,
    seed: int | None = None,
    progress: bool = False,
    note: Note = silent,
) -> tuple[Footprint, Convergence]:
    """Measure a Fisher on rows in a seeded order, doubled in every step, until its noise ceiling reaches a target."""
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another folder")
    options = _checked(table, options, target, note)
    folds, in_all = options.folds or 1, table.identity.get("rows_in_all", len(table))
    order = _order(table, seed)
    ends = [0, *planned_ends(table, options, seed)]

    def run(batch_size: int) -> tuple[Footprint, Convergence]:
        whole, parts, cut = Sums(), [Sums() for _ in range(folds)], 0
        curve = Convergence(target, (), len(table), in_all)
        with collector_of(loaded, options) as collector:
            for start, end in pairwise(ends):
                prepared = prepare(loaded, _part(table, order[start:end]), options.columns, folds=folds)
                for sentence in prepared.notes:
                    note(sentence)
                cut += prepared.columns.get("rows_cut", 0)
                batches = prepared.batches.with_batch_size(batch_size)
                sorted_batches = FoldSorted(batches, folds, by_position=not table.is_numbered)
                with with_bar(sorted_batches, progress=progress) as bar:
                    for part, stream in zip(parts, by_fold(bar, folds), strict=True):
                        for batch in stream:
                            collector.update(batch)
                        sums = collector.take()
                        part.add(sums)
                        whole.add(sums)
                        del sums  # its tensors go before the next fold has its own
                columns = prepared.columns | ({"rows_cut": cut} if "rows_cut" in prepared.columns else {})
                data = _identity(table, order[:end], seed) | {"columns": columns}
                facts = {"model": loaded.identity, "data": data}
                kept = [Fold(part.count, Means(part)) for part in parts]
                found = footprint_of(collector, Means(whole), parts, kept, facts, FOLD_DTYPE)
                point = Point(found.count, found.effective_sample_size, noise_ceiling(found).pooled, found.rows)
                curve = replace(curve, points=(*curve.points, point))
                note(
                    f"{end} of {len(table)} examples, effective sample size {point.effective:.1f}: "
                    f"noise ceiling {point.noise_ceiling}"
                )
                if curve.is_reached:
                    break
        short = tuple(Fold(fold.count, shortened(fold.tensors, FOLD_DTYPE)) for fold in found.folds)
        metadata = {**found.metadata, KEY: curve.record()}
        replace(found, folds=short, metadata=metadata).save(folder)
        if found.copies:
            note(f"{table.name}: {found.copies}")
        return Footprint.load(folder), curve

    return with_less_memory(loaded, options, len(table), note, run)


def until_outlook(
    loaded: LoadedModel, table: Table, options: MeasureOptions, target: float, *, folder: Path, note: Note = silent
) -> Outlook[Needs]:
    """Check what can be checked before measuring, room on disk too, and tell what it will take at most."""
    options = _checked(table, options, target, note)
    return measure_outlook(loaded, table, options, folder, note, in_memory=True)


def planned_ends(table: Table, options: MeasureOptions, seed: int | None = None) -> list[int]:
    """Tell after how many rows each step of :func:`measure_until` ends, if none of them is enough."""
    folds = fold_count([table], options.folds, silent)
    return step_ends([table.source_rows[position] for position in _order(table, seed)], folds)


def step_ends(source_rows: Sequence[int], folds: int, first: int = FIRST) -> list[int]:
    """Decide after how many rows each step ends: the first holds a row of every fold, and each doubles what there is.

    Args:
        source_rows: In the order in which they are taken; all together fill every fold.
        folds: How many folds.
        first: Rows of the first step, at least.

    Returns:
        Numbers of rows, ascending; the last is all rows.

    Example:
        >>> step_ends(range(300), 4)
        [64, 128, 256, 300]
    """
    numbers = [fold_of(row, folds) for row in source_rows]
    end = min(first, len(numbers))
    while len(set(numbers[:end])) < folds:
        end += 1
    ends = [end]
    while ends[-1] < len(numbers):
        ends.append(min(2 * ends[-1], len(numbers)))
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


def _order(table: Table, seed: int | None) -> list[int]:
    """Positions in the table, in the order in which rows are chosen from the whole data set."""
    position = {row: index for index, row in enumerate(_chosen(table))}
    total = table.identity.get("rows_in_all", len(table))
    return [position[row] for row in row_order(total, _seed(table, seed)) if row in position]


def _part(table: Table, positions: Sequence[int]) -> Table:
    rows = sorted(positions)
    return Table(table.name, table.rows.select(rows), [table.source_rows[row] for row in rows], table.identity)


def _identity(table: Table, positions: Sequence[int], seed: int | None) -> dict[str, Any]:
    if len(positions) == len(table):
        return table.identity
    chosen = _chosen(table)
    rows = sorted(chosen[position] for position in positions)
    return table.identity | {"rows_used": len(rows), "selection": {"seed": _seed(table, seed), "rows": rows}}
