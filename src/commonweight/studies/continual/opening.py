"""What is checked before a study begins: whether the plan can work, and goes on with what the run folder holds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.folders import check_writable
from commonweight.data.images.open import open_images
from commonweight.models.function import load_function
from commonweight.models.identity import digest_of
from commonweight.models.options import LoadOptions
from commonweight.models.placement import pick_device
from commonweight.studies.continual.networks import make_network, open_stream
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.results import FORMAT, VERSION
from commonweight.studies.continual.training import first_rows
from commonweight.studies.run.folder import check_place
from commonweight.studies.run.record import study_record

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.data.images import Images


def checked(run: Path, plan: Plan) -> tuple[Plan, Images]:
    """Refuse what can be known not to work before anything is written."""
    check_place(run)
    check_writable(run)
    plan = replace(plan, device=str(pick_device(plan.device)))
    images = open_images(
        plan.data, image_column=plan.image_column, label_column=plan.label_column, test_split=plan.test_split
    )
    _try_out(plan, images)
    return plan, images


def decided(plan: Plan, images: Images) -> dict[str, Any]:
    """Give what a run may not change once a network was saved."""
    found: dict[str, Any] = json.loads(json.dumps(plan.deciding() | {"data_sha256": images.digest}))
    if plan.model is not None:
        found["model_sha256"] = digest_of(load_function(plan.model, LoadOptions(device="cpu")).identity)
    return found


def going_on(run: Path, plan: Plan, images: Images) -> Plan:
    """Check that a plan goes on with what the run folder holds, and add the seeds and approaches that it has more."""
    former = study_record(run, FORMAT, VERSION)
    if not former or not any(run.glob("seed-*/*/network")):
        return plan
    before = decided(Plan(data=plan.data), images) | former["plan"]  # what an older record does not name was as usual
    changed = [
        f"{key} was {before[key]!r}, is now {value!r}"
        for key, value in decided(plan, images).items()
        if key in before and before[key] != value
    ]
    if changed:
        raise UsageError(f"{run} holds a study of something else: {'; '.join(changed)}. Choose another folder")
    approaches = (*former["approaches"], *plan.approaches)
    return replace(plan, seeds=max(plan.seeds, former["seeds"]), approaches=tuple(dict.fromkeys(approaches)))


def _try_out(plan: Plan, images: Images) -> None:
    for seed in range(plan.seeds):
        stream = open_stream(plan, images, seed)
        for index, name in enumerate(stream.names):
            count = len(stream[index].test)
            if plan.inference and min(count, plan.inference_rows) < max(plan.inference_batches, default=0):
                raise UsageError(
                    f"task {name} has {count} test images, of which {plan.inference_rows} are asked about, expected at "
                    f"least one batch of {max(plan.inference_batches)}: change inference_rows or inference_batches"
                )
    if stream.truth() is None and any(approach.has_priors and approach.prior == "oracle" for approach in plan.runs()):
        raise UsageError(
            f"the prior oracle needs tasks whose similarity is known, and {plan.scenario} has none; take "
            "rotated or patch"
        )
    make_network(plan, first_rows(stream[0].train, 2)[0], stream.outputs, seed=0)
