"""A study with its tables and figures: everything the command leaves in the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.text import silent
from commonweight.studies.shortcuts.figure_files import write_figures, write_tables
from commonweight.studies.shortcuts.run import run_study

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.studies.shortcuts.plan import Plan
    from commonweight.studies.shortcuts.results import ShortcutStudy
    from commonweight.studies.shortcuts.run import Step


def run_and_write(
    run: Path, plan: Plan, *, until: Step = "overlap", progress: bool = False, note: Note = silent
) -> ShortcutStudy | None:
    """Do a study, or go on with one, and write its tables and figures: ``study.md`` and ``figures/``."""
    found = run_study(run, plan, until=until, progress=progress, note=note)
    if found is None:
        note(f"done with {until}; the run is in {run}")
        return None
    figures: list[Path] = []
    try:
        figures = write_figures(found, run / "figures")
    except ModuleNotFoundError as error:
        note(f"no figures: they need {error.name}; pip install 'commonweight[plot]', then the same again")
    write_tables(found, run, figures)
    note(f"models, footprints, study.json, study.md and figures are in {run}")
    return found
