"""A study of continual learning from images to tables; what was done before is not done again."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from commonweight import __version__
from commonweight.errors import UsageError
from commonweight.studies.continual.measures import write
from commonweight.studies.continual.opening import checked, decided, going_on
from commonweight.studies.continual.outlook import outlook_of
from commonweight.studies.continual.plan import seed_folders
from commonweight.studies.continual.reading import gather
from commonweight.studies.continual.results import FORMAT, VERSION
from commonweight.studies.continual.sequence import learn_sequence
from commonweight.studies.continual.tasks import open_stream
from commonweight.studies.hold import held
from commonweight.studies.measure import silent
from commonweight.studies.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.data.streams import Images, TaskStream
    from commonweight.studies.continual.plan import Plan, SeedFolder
    from commonweight.studies.continual.results import ContinualStudy
    from commonweight.studies.measure import Note


def run_study(run: Path, plan: Plan, *, note: Note = silent) -> ContinualStudy:
    """Do a study, or go on with one: the same plan continues, more seeds and more approaches are added.

    The run folder holds ``run.json`` and, for each seed, ``tasks.json`` and one folder per approach: ``network/``,
    ``tasks/`` (curves, accuracies, alphas), ``masks/`` and ``activity/`` (footprints that ``commonweight overlap``
    reads), ``overlap.json``, ``similarity-*.json`` and ``inference.json``; at the end ``study.json``.

    Args:
        run: The run folder.
        plan: What is asked.
        note: Takes one sentence at a time that the user should hear.

    Returns:
        What was found; with all seeds and approaches that the run holds.

    Raises:
        UsageError: If the folder holds something else, the data or the network do not serve, or the disk has no room.
    """
    plan, images = checked(run, plan)
    with held(run) as hold:
        if hold.busy:
            raise UsageError(f"another process works in {run}; wait for it, or choose another run folder")
        hold.share()  # so that another process is refused at once, and does not wait for the end
        folder, plan = _open(run, plan, images)
        seeds = seed_folders(run, plan)
        for seed in seeds:
            _do_seed(plan, seed, open_stream(plan, images, seed.seed), note)
        found = gather(plan, seeds)
        folder.write("study.json", found.to_json())
        folder.update(status="complete")
        return found


def _open(run: Path, plan: Plan, images: Images) -> tuple[RunFolder, Plan]:
    whole = going_on(run, plan, images)
    outlook_of(run, whole, images).check()
    folder = RunFolder(run, {"format": FORMAT, "version": VERSION})
    folder.update(
        status="running",
        plan=decided(whole, images),
        seeds=whole.seeds,
        approaches=list(whole.approaches),
        versions={"python": platform.python_version(), "commonweight": __version__}
        | {name: version(name) for name in ("torch", "numpy")},
    )
    return folder, whole


def _do_seed(plan: Plan, folder: SeedFolder, stream: TaskStream, note: Note) -> None:
    truth = stream.truth()
    facts = {
        "names": list(stream.names),
        "stream": dict(stream.facts),
        "tasks": [dict(task.facts) for task in stream],
        "truth": None if truth is None else [[None if v != v else v for v in row] for row in truth.tolist()],
    }
    folder.path.mkdir(exist_ok=True)
    write(folder.facts, json.dumps(facts, indent=1) + "\n")
    for approach in plan.runs():
        learn_sequence(plan, approach, stream, folder, note)
