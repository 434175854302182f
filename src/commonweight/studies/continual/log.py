"""``accuracies.csv``: every accuracy that was measured, over the optimiser steps of all tasks, for other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.text import csv_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.studies.continual.results import ContinualStudy

FILE = "accuracies.csv"
HEADER = ("approach", "seed", "measured", "step", "task", "accuracy")


def accuracies_csv(study: ContinualStudy) -> str:
    """Write the log; ``measured`` is ``learning`` (rows watched meanwhile) or ``accuracy`` (all, after a task)."""
    return csv_text(HEADER, _rows(study))


def _rows(study: ContinualStudy) -> Iterator[tuple[str, int, str, int, str, float]]:
    for approach, runs in study.runs.items():
        for seed, (run, tasks) in enumerate(zip(runs, study.tasks, strict=True)):
            before = 0
            for index, curve in enumerate(run.curves):
                for step, value in zip(curve.steps, curve.accuracies, strict=True):
                    yield approach, seed, "learning", before + step, tasks[index], value
                before += curve.steps[-1]
                for task, value in zip(tasks, run.R[index, : index + 1].tolist(), strict=False):
                    yield approach, seed, "accuracy", before, task, value
