"""One approach and one seed: all tasks learned in turn, everything re-evaluated after each, and then measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from commonweight.errors import IntegrityError, MeasurementError
from commonweight.nn.masks.network import SupermaskNetwork
from commonweight.nn.masks.rules import Threshold, TopK
from commonweight.studies.continual.approaches import Approach
from commonweight.studies.continual.measures import measure, write
from commonweight.studies.continual.networks import make_network
from commonweight.studies.continual.plan import CLASSIC
from commonweight.studies.continual.priors import choose_priors
from commonweight.studies.continual.reading import is_readable, is_whole
from commonweight.studies.continual.training import accuracy, first_rows, learn

if TYPE_CHECKING:
    from commonweight.data.streams import TaskStream
    from commonweight.studies.continual.plan import ApproachFolder, Plan, SeedFolder
    from commonweight.studies.measure import Note


def learn_sequence(plan: Plan, approach: Approach, stream: TaskStream, seed: SeedFolder, note: Note) -> None:
    """Learn all tasks with one approach, or go on where it stopped.

    The network is saved whole after every task, after the task's record; so a task without its network is learned
    again, with the same result. Where a record or the network is missing or damaged, all tasks are.

    Args:
        plan: The plan.
        approach: How masks are trained.
        stream: The tasks.
        seed: Where everything of the seed lies.
        note: Takes one sentence at a time that the user should hear.

    Raises:
        MeasurementError: If a frozen weight or a finished task changed, which must not happen.
    """
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
    return SupermaskNetwork(model, rule, scores=plan.score_starts, seed=seed, weights_seed=world).to(plan.device)
