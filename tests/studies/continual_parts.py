"""Small networks and plans for the tests of continual learning, on the embedded digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight import open_images, task_stream
from commonweight.studies.continual.approaches import read_approach
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.training import learn, multitask_fc
from commonweight.supermasks.network import SupermaskNetwork

if TYPE_CHECKING:
    from commonweight.data.images import TaskStream


def small_plan(**given: Any) -> Plan:
    usual = {
        "data": "digits",
        "tasks": 3,
        "hidden": (32, 32),
        "rows": 600,
        "batch_size": 50,
        "learning_rate": 3e-3,
        "curve_points": 4,
        "curve_rows": 100,
        "inference_rows": 10,
        "probe_rows": 200,
    }
    return Plan(**(usual | given))


def stream_of(plan: Plan, seed: int = 0) -> TaskStream:
    return task_stream(open_images("digits"), plan.scenario, plan.tasks, seed, rows=plan.rows)


def network(stream: TaskStream, plan: Plan, **given: Any) -> SupermaskNetwork:
    return SupermaskNetwork(multitask_fc(64, stream.outputs, plan.hidden), **given)


def trained(plan: Plan, approach: str, **given: Any) -> SupermaskNetwork:
    """All tasks learned; those after the first influenced by the task before, in every layer but the last."""
    stream = stream_of(plan)
    net = network(stream, plan, **given)
    for index in range(len(stream)):
        priors = {stream.names[index - 1]: 1.0} if index else {}
        chosen = {name: priors for name in net.masked if name != "out.weight"} if priors else {}
        learn(net, stream[index], read_approach(approach), chosen, plan, 0)
    return net
