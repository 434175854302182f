"""What a study of shortcuts will take of disk and memory, and whether its rows fill its folds, before any training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import fold_of, needs_of
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.compare.folder import FOOTPRINTS
from commonweight.studies.compare.measure import FOLD_DTYPE, footprint_outlook
from commonweight.studies.shortcuts.plan import INDEPENDENT, ORIGINAL, START, TOGETHER
from commonweight.studies.shortcuts.training import COPIES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from commonweight.footprints.folds import Needs
    from commonweight.studies.run.outlook import Outlook
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

TRAINING = 4
"""Copies of the weights while a model is trained: these, their gradients, and the two moments of the optimizer."""


def missing(run: Path, plan: Plan, seeds: Sequence[SeedFolder], config: Any) -> Outlook[Needs]:
    """Count what is missing of a study."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers(), torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=plan.trust_remote_code
        )
    size = sum(parameter.nbytes for parameter in model.parameters())
    needs = needs_of(choose_parameters(model, None, None), plan.folds, FOLD_DTYPE)
    average = [TOGETHER.join(plan.shortcuts)] if plan.fused_footprints else []
    names = [START, *plan.trained, *average]
    absent = [name for seed in seeds for name in names if not seed.model(name).exists()]
    trained = {name for name in absent if name not in {START, *average, *(code for code, _ in plan.existing)}}
    footprints: dict[str, Needs] = {}
    there = 0
    for seed in seeds:
        for rule in plan.fisher_types:
            for name, (of, data) in plan.footprints.items():
                if (seed.grid(rule) / FOOTPRINTS / of / data).exists():
                    there += 1
                else:
                    footprints[f"seed {seed.seed}, {rule}: {name}"] = needs
    return footprint_outlook(
        run,
        footprints,
        model=size * max(TRAINING if trained else 1, len(plan.shortcuts) + 1),
        there=there,
        # the weights that one of them begins with are drawn anew, and go when it is trained
        models=size * (len(absent) + (COPIES if trained else 0) + (INDEPENDENT in trained)),
    )


def check_measured_rows(plan: Plan, seeds: Sequence[SeedFolder]) -> None:
    """Check that every fold holds measured rows, of the seeds whose rows are chosen already."""
    for seed in seeds:
        place = seed.measured(ORIGINAL)
        if not place.is_file():
            continue
        lines = place.read_text(encoding="utf-8").splitlines()
        check_folds(plan, seed, {json.loads(line)["source_row"] for line in lines})


def check_folds(plan: Plan, seed: SeedFolder, rows: Collection[int]) -> None:
    """Check that every fold holds measured rows."""
    empty = set(range(plan.folds)) - {fold_of(row, plan.folds) for row in rows}
    if empty:
        raise UsageError(
            f"fold {min(empty)} of {plan.folds} holds none of the {len(rows)} rows that seed {seed.seed} is "
            "measured on; measure more rows ({measured_rows}), or take fewer {folds}",
            measured_rows=None,
            folds=None,
        )
