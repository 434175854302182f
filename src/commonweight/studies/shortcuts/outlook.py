"""What a study of shortcuts will take of disk and memory, and whether its rows fill its folds, before any training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.base.text import silent
from commonweight.data.shortcuts import Markers
from commonweight.data.splits import open_source
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import Needs, fold_of, needs_of
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.compare.measure import FOLD_DTYPE
from commonweight.studies.compare.prepare import length_limit
from commonweight.studies.run.folder import FOOTPRINTS, check_place
from commonweight.studies.run.outlook import Outlook
from commonweight.studies.shortcuts.adopt import rehearse_existing
from commonweight.studies.shortcuts.grid import measured_models
from commonweight.studies.shortcuts.opening import former_record, planned_changes
from commonweight.studies.shortcuts.plan import INDEPENDENT, ORIGINAL, START, TOGETHER, seed_folders
from commonweight.studies.shortcuts.rows import check_train_rows, rehearse_rows
from commonweight.studies.shortcuts.start import check_head, read_encoder
from commonweight.studies.shortcuts.training import COPIES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

TRAINING = 4
"""Copies of the weights while a model is trained: these, their gradients, and the two moments of the optimizer."""


def study_outlook(run: Path, plan: Plan, *, note: Note = silent) -> Outlook:
    """Check a study without beginning it, and tell what it will take."""
    # Existing models are compared with the start; where it is not there yet, one is made in a temporary folder.
    check_place(run)
    is_new = bool(planned_changes(run, former_record(run), plan))
    config, tokenizer = read_encoder(plan.model, trust=plan.trust_remote_code)
    source = open_source(plan.data, text_column=plan.text_column, label_column=plan.label_column)
    check_head(plan.model, config, len(source.classes))
    length_limit(config, tokenizer, plan.max_length)
    new = [word for word in Markers().words if word not in tokenizer.get_vocab()]
    config.vocab_size = max(config.vocab_size, len(tokenizer) + len(new))
    config.num_labels = len(source.classes)
    seeds = seed_folders(run, plan)
    without_rows = [seed for seed in seeds if is_new or not seed.measured(ORIGINAL).is_file()]
    check_train_rows(source, plan, without_rows)
    # published rows are the same for all seeds
    for seed in without_rows[: 1 if plan.preset == "published" else None]:
        check_folds(plan, seed, rehearse_rows(source, plan, seed, tokenizer))
    check_measured_rows(plan, [seed for seed in seeds if seed not in without_rows])
    found = missing(run, plan, seeds, config)
    found.check()
    for seed in seeds:
        rehearse_existing(plan, seed, source.classes, note, anew=is_new)
    return found


def missing(run: Path, plan: Plan, seeds: Sequence[SeedFolder], config: Any) -> Outlook:
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
    for seed, rule, model_name, data in (
        (seed, rule, model_name, data)
        for seed in seeds
        for rule in plan.fisher_types
        for model_name in measured_models(plan)
        for data in (ORIGINAL, *plan.shortcuts)
    ):
        if (seed.grid(rule) / FOOTPRINTS / model_name / data).exists():
            there += 1
        else:
            footprints[f"seed {seed.seed}, {rule}: {model_name}/{data}"] = needs
    return Outlook(
        run,
        footprints,
        there,
        # the weights that one of them begins with are drawn anew, and go when it is trained
        models=size * (len(absent) + (COPIES if trained else 0) + (INDEPENDENT in trained)),
        model=size * max(TRAINING if trained else 1, len(plan.shortcuts) + 1),
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
            "measured on; measure more rows (--measured-rows), or take fewer --folds"
        )
