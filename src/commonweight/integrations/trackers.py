"""Numbers as scalars in the trackers that accelerate knows: TensorBoard, Weights & Biases, MLflow, Trackio, your own.

While a Trainer trains, :class:`~commonweight.integrations.OverlapCallback` logs through the Trainer. Here is what
writes a finished table, a finished run of ``commonweight continual``, or its report.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError, check_kind
from commonweight.overlaps.table.table import OverlapTable
from commonweight.report.html import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.overlaps.table.numbers import By, Row

ACCURACIES = "accuracies.csv"
"""What ``commonweight continual run`` writes."""

WANDB = "wandb"


def log_table(accelerator: Any, table: OverlapTable, *, step: int | None = None, by: By = "layer") -> None:
    """Write every number of a table of overlaps as a scalar, all at one step.

    Scalars are called ``quantity/place/a/b``, such as ``corrected/pooled/films/food`` or ``raw/encoder.0/films/food``,
    and ``noise_ceiling/pooled/films`` where a number is of one footprint. Ends of intervals are called
    ``corrected_low/…`` and ``corrected_high/…``. Undefined numbers are left out.

    Args:
        accelerator: An ``accelerate.Accelerator`` after ``init_trackers``. Only its ``log`` is called.
        table: The table.
        step: The step that the scalars are logged at; None leaves it to the tracker.
        by: ``layer`` or ``parameter``: what is logged beside the totals.

    Raises:
        UsageError: If ``table`` is no table of overlaps.

    Example:
        >>> from torch import ones
        >>> import commonweight
        >>> from commonweight.integrations import log_table
        >>> class Printing:
        ...     def log(self, values, step=None):
        ...         print(step, values["raw/pooled/a/b"])
        >>> footprint = commonweight.Footprint("fisher", {"fc.weight": ones(2)}, 8)
        >>> log_table(Printing(), commonweight.overlap({"a": footprint, "b": footprint}), step=3)
        3 1.0
    """
    check_kind("table", table, OverlapTable, "compute one with overlap({...})")
    accelerator.log(dict(_scalars(row for row in table.records(by) if row.a != row.b)), step=step)


def log_continual(accelerator: Any, run: str | Path) -> None:
    r"""Write the accuracies of a finished run of ``commonweight continual`` as curves, over the steps of all tasks.

    ``learning/approach/seed/task`` rises while the task is learned; ``accuracy/approach/seed/task`` is measured after
    this task and after each later one. These are the rows of ``accuracies.csv`` in the run folder.

    Args:
        accelerator: An ``accelerate.Accelerator`` after ``init_trackers``. Only its ``log`` is called.
        run: The run folder.

    Raises:
        UsageError: If the folder holds no finished run.
        IntegrityError: If its ``accuracies.csv`` is damaged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from commonweight.integrations import log_continual
        >>> class Printing:
        ...     def log(self, values, step=None):
        ...         print(step, values)
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "accuracies.csv").write_text(
        ...     "approach,seed,measured,step,task,accuracy\nclassic,0,learning,20,0-identity,0.75\n")
        >>> log_continual(Printing(), run)
        20 {'learning/classic/seed-0/0-identity': 0.75}
    """
    path = Path(run) / ACCURACIES
    if not path.is_file():
        raise UsageError(f"{run} has no {ACCURACIES}: give the folder of a finished run of commonweight continual")
    by_step: dict[int, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                name = f"{row['measured']}/{row['approach']}/seed-{row['seed']}/{row['task']}"
                by_step.setdefault(int(row["step"]), {})[name] = float(row["accuracy"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}): run the same command again") from None
    for step, values in sorted(by_step.items()):
        accelerator.log(values, step=step)


def log_report(accelerator: Any, run: str | Path) -> None:
    """Keep the report of a finished run as an artefact, beside the scalars: in MLflow and Weights & Biases.

    Args:
        accelerator: An ``accelerate.Accelerator`` after ``init_trackers``. A tracker of your own keeps it if it has a
            method ``log_artifact(path)``.
        run: The run folder, with its ``report.html``.

    Raises:
        UsageError: If the folder holds no report, or none of the trackers keeps files, as TensorBoard does not.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from types import SimpleNamespace
        >>> from commonweight.integrations import log_report
        >>> class Keeping:
        ...     name = "mine"
        ...     def log_artifact(self, path):
        ...         print(Path(path).name)
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "report.html").write_text("<html></html>")
        >>> log_report(SimpleNamespace(trackers=[Keeping()]), run)
        report.html
    """
    page = Path(run) / REPORT
    if not page.is_file():
        raise UsageError(f"{run} has no {REPORT}: write it with commonweight report {run}")
    keeping = [tracker for tracker in accelerator.trackers if tracker.name == WANDB or hasattr(tracker, "log_artifact")]
    if not keeping:
        names = ", ".join(tracker.name for tracker in accelerator.trackers) or "none"
        raise UsageError(f"expected a tracker that keeps files, such as mlflow or wandb, got {names}")
    for tracker in keeping:
        if tracker.name == WANDB:
            tracker.tracker.log_artifact(str(page), name="commonweight-report", type="report")
        else:
            tracker.log_artifact(str(page))


def _scalars(rows: Iterator[Row]) -> Iterator[tuple[str, float]]:
    for row in rows:
        place = row.name or row.level
        where = "/".join(part for part in (place, row.a, row.b) if part)
        for end, value in (("", row.value), ("_low", row.low), ("_high", row.high)):
            if not math.isnan(value):
                yield f"{row.quantity}{end}/{where}", value
