"""A study of continual learning from images to tables; what was done before is not done again."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.base.text import silent
from commonweight.base.version import __version__
from commonweight.studies.continual.approaches import Approach
from commonweight.studies.continual.measures import measure, write
from commonweight.studies.continual.networks import make_network, open_stream
from commonweight.studies.continual.opening import checked, decided, going_on
from commonweight.studies.continual.outlook import outlook_of
from commonweight.studies.continual.plan import CLASSIC, seed_folders
from commonweight.studies.continual.priors import choose_priors
from commonweight.studies.continual.reading import gather, is_readable, is_whole
from commonweight.studies.continual.results import FORMAT, VERSION
from commonweight.studies.continual.training import accuracy, first_rows, learn
from commonweight.studies.run.folder import RunFolder
from commonweight.studies.run.hold import held
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import Threshold, TopK

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.data.images import Images, TaskStream
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder
    from commonweight.studies.continual.results import ContinualStudy


def run_study(run: Path, plan: Plan, *, note: Note = silent) -> ContinualStudy:
    """Do a study, or go on with one: the same plan continues, more seeds and more approaches are added."""
    # The run folder holds ``run.json`` and, for each seed, ``tasks.json`` and one folder per approach: ``network/``,
    # ``tasks/`` (curves, accuracies, alphas), ``masks/`` and ``activity/`` (footprints that ``commonweight overlap``
    # reads), ``overlap.json``, ``similarity-*.json`` and ``inference.json``; at the end ``study.json``.
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


def learn_sequence(plan: Plan, approach: Approach, stream: TaskStream, seed: SeedFolder, note: Note) -> None:
    """Learn all tasks with one approach, or go on where it stopped."""
    # The network is saved whole after every task, after the task's record; so a task without its network is learned
    # again, with the same result. Where a record or the network is missing or damaged, all tasks are.
    folder = seed.approach(approach)
    if is_whole(plan, folder):
        return
    folder.path.joinpath("tasks").mkdir(parents=True, exist_ok=True)
    net = _network(plan, stream, folder, seed.seed, note)
    weights = net.weights_digest()
    tests = [task.test for task in stream]
    for index in range(len(net.tasks), len(stream)):
        task = stream[index]  # its rows are built anew, and let go afterwards
        alphas, chosen = choose_priors(net, task, approach, stream, seed.approach(Approach(CLASSIC)), plan, seed.seed)
        curve = learn(net, task, approach, alphas, plan, seed.seed)
        if net.weights_digest() != weights:
            raise MeasurementError(f"a frozen weight changed while task {task.name} was learned; the run is void")
        done = range(index + 1)
        accuracies = [accuracy(net, stream.names[j], *first_rows(tests[j], None)) for j in done]
        record = {
            "task": task.name,
            "accuracies": accuracies,
            "curve": {"steps": curve.steps, "accuracies": curve.accuracies, "counted_from": curve.counted_from},
            "alphas": None if chosen is None else json.loads(chosen.to_json()),
            "weights_sha256": weights,
        }
        write(folder.task(index), json.dumps(record, indent=1) + "\n")
        net.save(folder.network, overwrite=True)
        note(
            f"seed {seed.seed}, {approach.name}: learned {task.name} ({index + 1} of {len(stream)}), "
            f"accuracy {accuracies[-1]:.3f}"
        )
    measure(net, stream, folder, plan)


def _network(plan: Plan, stream: TaskStream, folder: ApproachFolder, seed: int, note: Note) -> SupermaskNetwork:
    world = plan.world(seed)
    model = make_network(plan, first_rows(stream[0].train, 2)[0], stream.outputs, world)
    if folder.network.exists():
        try:
            net = SupermaskNetwork.load(folder.network, model).to(plan.device)
            records = [folder.task(index) for index in range(len(net.tasks))]
            lost = next((str(path) for path in records if not is_readable(path)), None)
        except IntegrityError as error:
            lost = str(error)
        if lost is None:
            return net
        note(f"seed {seed}: missing or damaged: {lost}; so all tasks of {folder.path.name} are learned again")
    rule = Threshold() if plan.density is None else TopK(plan.density)
    return SupermaskNetwork(model, rule, scores=plan.score_initialisation, seed=seed, weights_seed=world).to(
        plan.device
    )
