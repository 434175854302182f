"""The averages of the trained models: every pair, every three, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.decision.fusing import fuse
from commonweight.studies.shortcuts.plan import TOGETHER

if TYPE_CHECKING:
    from commonweight.studies.measure import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def make_averages(plan: Plan, folder: SeedFolder, note: Note) -> None:
    """Write the uniform average of every two or more models; what is there already stays.

    Args:
        plan: Which models.
        folder: The seed, its models trained.
        note: Takes one sentence at a time that the user should hear.
    """
    for chosen in plan.averages:
        place = folder.model(TOGETHER.join(chosen))
        if not place.exists():
            note(f"seed {folder.seed}: averaging {', '.join(chosen)}")
            fuse([folder.model(name) for name in chosen], output=place, note=note)
