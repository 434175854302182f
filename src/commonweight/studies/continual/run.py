"""A study of continual learning from images to tables; what was done before is not done again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.base.folders import check_writable, write_whole
from commonweight.base.text import silent
from commonweight.data.images.open import open_images
from commonweight.interventions.masks import localise_masks
from commonweight.models.function import load_function
from commonweight.models.identity import digest_of
from commonweight.models.options import LoadOptions
from commonweight.models.placement import pick_device
from commonweight.report.answer import write_result
from commonweight.report.files import write_figures
from commonweight.studies.continual.answer import result
from commonweight.studies.continual.figures import figures_of
from commonweight.studies.continual.log import FILE, accuracies_csv
from commonweight.studies.continual.mask_figure import mask_figures
from commonweight.studies.continual.measures import choose_priors, measure
from commonweight.studies.continual.outlook import outlook_of
from commonweight.studies.continual.plan import seed_folders
from commonweight.studies.continual.results import gather, is_readable, is_whole, load_masks
from commonweight.studies.continual.training import (
    LOCALISED_ROWS,
    accuracy,
    first_rows,
    learn,
    make_network,
    open_stream,
    probe,
    rule_of,
)
from commonweight.studies.run.cluster import check_scheduler, do_all
from commonweight.studies.run.folder import check_place, open_run, write_json
from commonweight.studies.run.hold import held_alone, waited_for
from commonweight.studies.run.record import StudyKind, differences, read_record, refuse_another
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.data.images import Images, TaskStream
    from commonweight.studies.continual.approaches import Approach
    from commonweight.studies.continual.outlook import ContinualOutlook
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder
    from commonweight.studies.continual.results import ContinualStudy

CONTINUAL = StudyKind("continual", ("torch", "numpy"))


def run_study(run: Path, plan: Plan, *, scheduler: str | None = None, note: Note = silent) -> ContinualStudy:
    """Do a study, or go on with one: the same plan continues, more seeds and more approaches are added."""
    # The run folder holds ``run.json`` and, for each seed, ``tasks.json`` and one folder per approach: ``network/``,
    # ``tasks/`` (curves, accuracies, alphas), ``masks/`` and ``activity/`` (footprints that ``commonweight overlap``
    # reads), ``overlap.json``, ``similarity-*.json`` and ``inference.json``; at the end ``study.json``.
    check_scheduler(scheduler)
    plan, images = checked(run, plan)
    with held_alone(run, note):
        plan = going_on(run, plan, images)
        outlook_of(run, plan, images).check()
        folder = open_run(run, CONTINUAL, "running", asked(plan, images), plan.growing())
        seeds = seed_folders(run, plan)
        with folder.working():
            if scheduler is not None:
                do_all(scheduler, {f"seed {seed.seed}": partial(_seed_item, plan, seed) for seed in seeds}, note)
            for seed in seeds:  # what is done is not done again
                _do_seed(plan, seed, open_stream(plan, images, seed.seed), note)
            found = gather(plan, seeds)
        folder.finish(found.to_json())
        return found


def run_and_write(run: Path, plan: Plan, *, scheduler: str | None = None, note: Note = silent) -> ContinualStudy:
    """Do a study, or go on with one, and write its tables, log and figures."""
    found = run_study(run, plan, scheduler=scheduler, note=note)
    masks = load_masks(run, found, next(iter(found.runs)))
    write_figures(chain(figures_of(found), mask_figures(masks)), run / "figures", note)
    write_whole(run / FILE, accuracies_csv(found))
    write_result(run, result(found))
    note(f"networks, masks, statistics, study.json, study.md and figures are in {run}")
    return found


def study_outlook(run: Path, plan: Plan) -> ContinualOutlook:
    """Check a study without beginning it, and tell what it will take."""
    plan, images = checked(run, plan)
    plan = going_on(run, plan, images)
    found = outlook_of(run, plan, images)
    steps = sum(each.missing_steps for each in found.pieces.values())
    return found.with_time(steps * probe(plan, open_stream(plan, images, 0)), "train") if steps else found


def checked(run: Path, plan: Plan) -> tuple[Plan, Images]:
    """Refuse what can be known not to work before anything is written."""
    check_place(run)
    check_writable(run)
    plan = replace(plan, device=str(pick_device(plan.device)))
    images = _images(plan)
    _try_out(plan, images)
    return plan, images


def _images(plan: Plan) -> Images:
    return open_images(
        plan.data, image_column=plan.image_column, label_column=plan.label_column, test_split=plan.test_split
    )


def _seed_item(plan: Plan, folder: SeedFolder) -> None:
    """Do one seed in a worker of a cluster."""
    with waited_for(folder.path):  # a worker that Dask gave up may still write there
        _do_seed(plan, folder, open_stream(plan, _images(plan), folder.seed), silent)


def asked(plan: Plan, images: Images) -> dict[str, Any]:
    """Give what a run may not change once a network was saved."""
    found = plan.deciding() | {"data_sha256": images.digest}
    if plan.model is not None:
        found["model_sha256"] = digest_of(load_function(plan.model, LoadOptions(device="cpu")).identity)
    return found


def going_on(run: Path, plan: Plan, images: Images) -> Plan:
    """Check that a plan goes on with what the run folder holds, and add the seeds and approaches that it has more."""
    former = read_record(run, CONTINUAL)
    if not former or not any(run.glob("seed-*/*/network")):
        return plan
    refuse_another(run, differences(former["asked"], asked(plan, images)), "Choose another folder")
    return plan.grown(run, former["grown"])


def _try_out(plan: Plan, images: Images) -> None:
    for seed in range(plan.seeds):
        stream = open_stream(plan, images, seed)
        for index, name in enumerate(stream.names):
            count = len(stream[index].test)
            if plan.inference and min(count, plan.inference_rows) < max(plan.inference_batches, default=0):
                raise UsageError(
                    f"task {name} has {count} test images, of which {plan.inference_rows} are asked about, expected at "
                    f"least one batch of {max(plan.inference_batches)}: change {{inference_rows}} or "
                    "{inference_batches}",
                    inference_rows=None,
                    inference_batches=None,
                )
    if stream.truth() is None and any(approach.has_priors and approach.prior == "oracle" for approach in plan.runs()):
        raise UsageError(
            f"the prior oracle needs tasks whose similarity is known, and {plan.scenario} has none; take "
            "rotated or patch"
        )
    make_network(plan, first_rows(stream[0].train, 2)[0], stream.outputs, seed=0)


def _do_seed(plan: Plan, folder: SeedFolder, stream: TaskStream, note: Note) -> None:
    truth = stream.truth()
    facts = {
        "names": list(stream.names),
        "stream": dict(stream.facts),
        "tasks": [dict(task.facts) for task in stream],
        "truth": None if truth is None else truth.tolist(),
    }
    folder.path.mkdir(exist_ok=True)
    write_json(folder.facts, facts)
    for approach in plan.runs():
        learn_sequence(plan, approach, stream, folder, note)
    if plan.localise and folder.seed == 0:
        _localise(plan, stream, folder, note)


def _localise(plan: Plan, stream: TaskStream, seed: SeedFolder, note: Note) -> None:
    """Switch off bits of the first approach's masks, for every pair of tasks."""
    folder = seed.approach(plan.runs()[0])
    if folder.localised.is_file():
        return
    net = _network(plan, stream, folder, seed.seed, note)
    rows = {task.name: first_rows(task.test, LOCALISED_ROWS) for task in stream}
    write_json(folder.localised, localise_masks(net, rows).record())


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
        alphas, chosen = choose_priors(net, task, approach, stream, plan, seed)
        curve = learn(net, task, approach, alphas, plan, seed.seed)
        if net.weights_digest() != weights:
            raise MeasurementError(f"a frozen weight changed while task {task.name} was learned; the run is void")
        accuracies = [accuracy(net, stream.names[j], *first_rows(tests[j], None)) for j in range(index + 1)]
        record = {
            "task": task.name,
            "accuracies": accuracies,
            "curve": asdict(curve),
            "alphas": None if chosen is None else json.loads(chosen.to_json()),
            "weights_sha256": weights,
        }
        write_json(folder.task(index), record)
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
    return SupermaskNetwork(model, rule_of(plan), scores=plan.score_initialisation, seed=seed, weights_seed=world).to(
        plan.device
    )
