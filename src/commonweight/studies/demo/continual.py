"""The study of continual learning made small: five rotations of the embedded digits in one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.text import Note, silent
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.run import run_study

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.continual.results import ContinualStudy

DEMO = Plan(
    data="digits",
    scenario="rotated",
    tasks=5,
    approaches=("classic", "transfer", "initialised-probed", "initialised-random"),
    seeds=2,
    hidden=(100, 100),
    epochs=4,
    batch_size=32,
    curve_points=8,
    curve_rows=200,
    inference_rows=60,
    inference_batches=(20,),
)
"""What the demonstration asks."""


def run_continual_demo(folder: Path, *, plan: Plan = DEMO, note: Note = silent) -> ContinualStudy:
    """Train, measure, infer; what is there from an earlier demonstration is not done again."""
    return run_study(folder, plan, note=note)
