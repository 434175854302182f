"""How many examples are enough? A Fisher of more and more rows, until its split-half noise ceiling is high enough.

Sums over disjoint rows add, so no row is measured twice: one collector measures the rows of each step, and the noise
ceiling is read off the sums so far. The result is that of the rows that ``--examples N --data-seed SEED`` chooses, with
the N that was needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.errors import UsageError
from commonweight.base.records import without_nan
from commonweight.base.text import DASH, Block, Grid, Note, number, silent
from commonweight.diagonal_fisher.batch import by_fold
from commonweight.diagonal_fisher.collector import Means, Sums
from commonweight.diagonal_fisher.measure import footprint_of
from commonweight.footprints.copies import beware_of_copies
from commonweight.footprints.folds import FoldSorted, fold_of, shortened
from commonweight.footprints.footprint import Fold, Footprint
from commonweight.overlaps.resampling.noise_ceiling import noise_ceiling
from commonweight.studies.compare.measure import FOLD_DTYPE, collector_of, measure_outlook, with_less_memory
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.compare.rows import fold_count
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.estimate import Estimate
    from commonweight.data.table import Table
    from commonweight.footprints.copies import RowCounts
    from commonweight.footprints.folds import Needs
    from commonweight.models.options import LoadedModel
    from commonweight.studies.compare.options import MeasureOptions
    from commonweight.studies.run.outlook import Outlook

FIRST = 64
"""Rows of the first step; each step doubles what there is."""

READING = (
    "The noise ceiling is the overlap of two halves of the examples, so it is that of half as many; an overlap "
    "corrected by it is the estimate to quote. It says how much noise of the examples is left, not how well other "
    "trainings agree."
)
PASSED = (
    "Rows were added until the noise ceiling was reached in two steps in a row, so the last value is one that passed: "
    "by this selection it is too high on average, and its interval holds only given that the measurement stopped "
    "there. It is far too high where a few loud examples carry much of the trace and these rows hold too few of them."
)
NEVER_PASSED = (
    "The measurement would have stopped earlier had the noise ceiling been reached in two steps in a row: by this "
    "selection the last value is, if anything, too low on average, and its interval holds only given that."
)


@dataclass(frozen=True)
class Point:
    """What one step came to."""

    examples: int
    effective: float
    """Effective sample size; nan for a zero Fisher."""

    noise_ceiling: Estimate
    """Of all weights pooled, over folds."""

    rows: RowCounts | None = None
    """How many rows have copies in other folds; None where it was not measured."""

    def fault(self, target: float) -> Literal["", "low", "copies", "few"]:
        """Say what keeps the noise ceiling from being high enough here; to stop takes two steps in a row without."""
        if not self.noise_ceiling.value >= target:
            return "low"
        if self.rows is not None and not self.rows.are_disjoint:
            return "copies"
        return "" if self.effective >= SMALLEST_EFFECTIVE else "few"


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
        return before > 0 and not any(point.fault(self.target) for point in self.points[before - 1 :])

    def record(self) -> dict[str, Any]:
        """Describe it in plain JSON values."""
        points = [
            {
                "examples": point.examples,
                "effective_sample_size": point.effective,
                "noise_ceiling": point.noise_ceiling.value,
                "low": point.noise_ceiling.low,
                "high": point.noise_ceiling.high,
                "rows": point.rows and point.rows._asdict(),
            }
            for point in self.points
        ]
        found: dict[str, Any] = without_nan({
            "target": self.target,
            "fewest_effective_sample_size": SMALLEST_EFFECTIVE,
            "reached": self.is_reached,
            "rows": self.available,
            "rows_in_all": self.in_all,
            "points": points,
        })
        return found

    def blocks(self) -> list[Block]:
        """Lay out the curve, and say what it supports."""
        rows = tuple(
            (
                str(examples),
                DASH if math.isnan(effective) else f"{effective:.1f}",
                number(found.value),
                DASH if found.missing else f"[{number(found.low)}, {number(found.high)}]",
            )
            for examples, effective, found in (
                (each.examples, each.effective, each.noise_ceiling) for each in self.points
            )
        )
        head = ("examples", "effective sample size", "noise ceiling", "95 % over folds")
        falls = [
            f"From {one.examples} to {two.examples} examples the effective sample size fell from {one.effective:.1f} "
            f"to {two.effective:.1f}: examples came in that carry more of the trace than those before, and noise "
            'ceilings of rows without such examples are too high (see "loud examples" in docs/evidence.md).'
            for one, two in pairwise(self.points)
            if two.effective < one.effective
        ]
        grid = Grid("Split-half noise ceiling of all weights, as examples are added", head, rows)
        return [grid, *falls, *self._end(), READING]

    def _end(self) -> list[Block]:
        """Say what the last noise ceiling means, and what helps where the rows ended before it was reached."""
        last, target = self.points[-1], self.target
        if math.isnan(last.noise_ceiling.value):
            zero = "is zero"
            if not math.isnan(last.effective):
                zero += " but for one fold, so no two halves can be compared"
            return [
                f"The noise ceiling is undefined, so whether {target:g} can be reached is unknown: the Fisher of all "
                f"{last.examples} examples {zero}. Look at the labels, at what --include and --exclude leave, and "
                "whether the model is certain of every label it is given."
            ]
        if self.is_reached:
            return [
                f"The noise ceiling of {target:g} is reached with {last.examples} of {self.available} examples, in two "
                "steps in a row.",
                PASSED,
            ]
        whose, more = "The data", "Measure on more rows"
        if self.available < self.in_all:
            whose, more = "The rows that --examples allows", f"Allow more of the {self.in_all} rows with --examples"
        value = f"with all {self.available} examples it is {number(last.noise_ceiling.value)}"
        said = {
            "low": f"was reached: {value}, below {target:g}. {more}, or quote corrected overlaps with their intervals.",
            "copies": f"could count: {value}, but {last.rows and beware_of_copies(last.rows)}.",
            "few": f"could count: {value}, but the effective sample size of {last.effective:.1f} is below "
            f"{SMALLEST_EFFECTIVE}. {more}.",
            "": f"was confirmed: {value}, at least {target:g}, but two steps in a row must be enough, the first with "
            f"at most two thirds of the rows. {more}.",
        }
        return [f"{whose} ended before the noise ceiling {said[last.fault(target)]}", NEVER_PASSED]


def measure_until(
    loaded: LoadedModel,
    table: Table,
    options: MeasureOptions,
    target: float,
    *,
    folder: Path,
    note: Note = silent,
) -> tuple[Footprint, Convergence]:
    """Measure a Fisher on rows in the order of the table, doubled in every step, until its noise ceiling is reached."""
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another folder")
    folds = _folds(table, options, target, note)
    ends = step_ends([table.source_rows[place] for place in table.order], folds)

    def run(batch_size: int) -> tuple[Footprint, Convergence]:
        whole, parts, cut = Sums(), [Sums() for _ in range(folds)], 0
        curve = Convergence(target, (), len(table), table.identity["rows_in_all"])
        with collector_of(loaded, options) as collector:
            for start, end in pairwise([0, *ends]):
                step = table.taken(table.order[start:end])
                prepared = prepare(loaded, step, options.columns, folds=folds, note=note)
                if "rows_cut" in prepared.columns:
                    cut = prepared.columns["rows_cut"] = cut + prepared.columns["rows_cut"]
                batches = prepared.batches.with_batch_size(batch_size)
                sorted_batches = FoldSorted(batches, folds, by_position=not table.is_numbered)
                for part, stream in zip(parts, by_fold(sorted_batches, folds), strict=True):
                    for batch in stream:
                        collector.update(batch)
                    sums = collector.take()
                    part.add(sums)
                    whole.add(sums)
                    del sums  # its tensors go before the next fold has its own
                so_far = table if end == len(table) else table.taken(table.order[:end])
                facts = {"model": loaded.identity, "data": so_far.identity | {"columns": prepared.columns}}
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
            if (lost := collector.lost()) is not None:
                note(lost)
        short = tuple(Fold(fold.count, shortened(fold.tensors, FOLD_DTYPE)) for fold in found.folds)
        metadata = {**found.metadata, "until_noise_ceiling": curve.record()}
        replace(found, folds=short, metadata=metadata).save(folder)
        if found.copies:
            note(f"{table.name}: {found.copies}")
        return Footprint.load(folder), curve

    return with_less_memory(loaded, options, len(table), note, run)


def until_outlook(
    loaded: LoadedModel, table: Table, options: MeasureOptions, target: float, *, folder: Path, note: Note = silent
) -> Outlook[Needs]:
    """Check what can be checked before measuring, room on disk too, and tell what it will take at most."""
    options = replace(options, folds=_folds(table, options, target, note))
    return measure_outlook(loaded, table, options, folder, note, in_memory=True)


def planned(table: Table, options: MeasureOptions, target: float) -> Block:
    """Say what a measurement up to a noise ceiling will do."""
    folds = _folds(table, options, target, silent)
    *before, last = step_ends([table.source_rows[place] for place in table.order], folds)
    steps = f"{', '.join(map(str, before))} and {last}" if before else last
    return (
        f"It stops where the noise ceiling is at least {target:g}, with an effective sample size of "
        f"{SMALLEST_EFFECTIVE} or more, in two steps in a row. Steps: {steps} rows; at most {last} are measured."
    )


def step_ends(source_rows: Sequence[int], folds: int) -> list[int]:
    """Decide after how many rows each step ends: the first holds rows of every fold, each doubles: 64, 128, …, all."""
    numbers = [fold_of(row, folds) for row in source_rows]
    end = max(FIRST, *(1 + numbers.index(fold) for fold in range(folds)))
    ends = []
    while end < len(numbers):
        ends.append(end)
        end *= 2
    return [*ends, len(numbers)]


def _folds(table: Table, options: MeasureOptions, target: float, note: Note) -> int:
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
    return folds
