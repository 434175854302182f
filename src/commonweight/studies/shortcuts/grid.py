"""The full grid: every model's Fisher on every data set, under every Fisher type; what it takes, and its rows."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.data.table import open_table
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import fold_of, needs_of
from commonweight.models.checkpoint import quiet_transformers
from commonweight.models.options import LoadOptions
from commonweight.overlaps.table.files import RECORD as OVERLAP
from commonweight.studies.compare.compare import compare
from commonweight.studies.compare.folder import FOOTPRINTS, read_comparison
from commonweight.studies.compare.measure import FOLD_DTYPE, footprint_outlook
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions
from commonweight.studies.compare.rows import rows_key
from commonweight.studies.shortcuts.models import COPIES
from commonweight.studies.shortcuts.plan import INDEPENDENT, ORIGINAL, START

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.data.splits import Source
    from commonweight.footprints.folds import Needs
    from commonweight.studies.run.outlook import Outlook
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


TRAINING = 4
"""Copies of the weights while a model is trained: these, their gradients, and the two moments of the optimizer."""


def is_measured(plan: Plan, folder: SeedFolder, fisher_type: str) -> bool:
    """Tell whether all Fishers of one Fisher type were measured and compared."""
    found = read_comparison(folder.grid(fisher_type)).get("footprints", {})
    return set(plan.footprints) <= set(found) and (folder.grid(fisher_type) / OVERLAP).is_file()


def measure_grid(plan: Plan, folder: SeedFolder, *, note: Note) -> None:
    """Measure what is missing of the grid and compare everything."""
    models = [f"{name}={folder.model(name)}" for name in plan.measured]
    data = [f"{name}={folder.measured(name)}" for name in plan.sets]
    columns = ColumnOptions(text_column=("text",), label_column="label", max_length=plan.max_length)
    note = _without_repeats(note, (f"{name}:" for name in plan.footprints))
    for rule in plan.fisher_types:
        options = CompareOptions(
            load=LoadOptions(trust_remote_code=plan.trust_remote_code),
            measure=MeasureOptions(fisher_type=rule, folds=plan.folds, columns=columns),
        )
        compare(models, data, folder.grid(rule), options, note=note)


def _without_repeats(note: Note, footprints: Iterable[str]) -> Note:
    """Pass on every sentence about a footprint, and any other once: the rows that are cut are the same for all."""
    beginnings = tuple(footprints)
    heard: set[str] = set()

    def once(sentence: str) -> None:
        if sentence.startswith(beginnings) or sentence not in heard:
            note(sentence)
        heard.add(sentence)

    return once


def measured_rows(plan: Plan, folder: SeedFolder) -> Mapping[str, str]:
    """Name the source rows of every set that Fishers were measured on."""
    found = {}
    for name in plan.sets:
        place = folder.measured(name)
        table = open_table(str(place))
        for rule in plan.fisher_types:
            asked = read_comparison(folder.grid(rule)).get("asked", {"data": {}})
            measured = asked["data"].get(name, {}).get("sha256")
            if measured != table.identity["sha256"]:
                raise IntegrityError(
                    f"{place} is not what the Fishers in {folder.grid(rule)} were measured on: expected SHA-256 "
                    f"{measured}, got {table.identity['sha256']}; put the file back, or remove that folder and run the "
                    "study again"
                )
        found[name] = rows_key(table)
    return found


def missing(run: Path, plan: Plan, seeds: Sequence[SeedFolder], config: Any) -> Outlook[Needs]:
    """Count what is missing of a study."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers(), torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=plan.trust_remote_code
        )
    size = sum(parameter.nbytes for parameter in model.parameters())
    needs = needs_of(choose_parameters(model, None, None), plan.folds, FOLD_DTYPE)
    names = [START, *plan.trained, *plan.average]
    absent = [name for seed in seeds for name in names if not seed.model(name).exists()]
    trained = {*absent} - {START, *plan.average, *dict(plan.existing)}
    every = {
        f"seed {seed.seed}, {rule}: {name}": seed.grid(rule) / FOOTPRINTS / of / data
        for seed, rule in product(seeds, plan.fisher_types)
        for name, (of, data) in plan.footprints.items()
    }
    footprints = {words: needs for words, place in every.items() if not place.exists()}
    return footprint_outlook(
        run,
        footprints,
        model=size * max(TRAINING if trained else 1, len(plan.shortcuts) + 1),
        there=len(every) - len(footprints),
        # the weights that one of them begins with are drawn anew, and go when it is trained
        models=size * (len(absent) + (COPIES if trained else 0) + (INDEPENDENT in trained)),
    )


def check_measured_rows(plan: Plan, seeds: Sequence[SeedFolder]) -> None:
    """Check that every fold holds measured rows, of the seeds whose rows are chosen already."""
    for seed in seeds:
        if seed.measured(ORIGINAL).is_file():
            check_folds(plan, seed, set(open_table(str(seed.measured(ORIGINAL))).source_rows))


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


def probe(plan: Plan, config: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Time a forward and backward pass of an encoder of this shape: seconds per row."""
    from transformers import AutoModelForSequenceClassification

    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=plan.max_length, return_tensors="pt")
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        model: Any = AutoModelForSequenceClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=plan.trust_remote_code
        )
    for _ in range(2):  # the first is slower
        start = time.perf_counter()
        model(**batch).logits.sum().backward()
    return (time.perf_counter() - start) / len(texts)


def rows_to_pass(plan: Plan, seeds: Sequence[SeedFolder], source: Source, footprints: Collection[str]) -> float:
    """Count the rows that go forward and backward: of training, and of Fishers, with a pass per class where exact."""
    rows = len(source.splits["train"]) if plan.train_rows is None else min(plan.train_rows, len(source.splits["train"]))
    models = sum(not seed.model(name).exists() for seed in seeds for name in plan.trained)
    measured = plan.measured_rows or len(source.splits["validation"])
    passes = {"empirical": 1, "mc": 1, "exact": len(source.classes)}
    fishers = sum(passes[name.split(", ")[1].partition(":")[0]] for name in footprints)
    return models * rows * plan.epochs + fishers * measured
