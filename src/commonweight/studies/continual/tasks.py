"""The tasks a plan asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.data.streams import task_stream

if TYPE_CHECKING:
    from commonweight.data.streams import Images, TaskStream
    from commonweight.studies.continual.plan import Plan


def open_stream(plan: Plan, images: Images, seed: int) -> TaskStream:
    """Make the stream of one seed.

    Args:
        plan: Scenario, number of tasks, order, rows.
        images: The images.
        seed: Names all draws, unless the plan varies the training alone.

    Returns:
        The stream.

    Raises:
        UsageError: If the images do not give so many tasks, or so many rows.
    """
    options: dict[str, Any] = {}
    if plan.scenario != "permuted":
        options["order"] = plan.order
    if plan.scenario == "rotated":
        options["max_angle"] = plan.max_angle
    if plan.scenario == "partitioned":
        options["remap_labels"] = plan.remap_labels
    return task_stream(
        images,
        plan.scenario,
        plan.tasks,
        plan.world(seed),
        normalise=plan.normalise,
        rows=plan.rows,
        random_labels=plan.random_labels,
        **options,
    )
