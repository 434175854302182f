"""The rows of a study: what models are trained and tested on, and what their Fishers are measured on."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.folders import write_whole
from commonweight.data.shortcuts import (
    Markers,
    ShortcutData,
    build_shortcut_data,
    conflicting_rows,
    published_conflicting,
    published_data,
    published_originals,
)
from commonweight.data.shortcuts.source import TRAIN, read_source
from commonweight.data.table import choose_rows
from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.splits import Source
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

FEW = 256
"""Train rows that are planted to see whether a rule can be planted at all."""


def check_train_rows(source: Source, plan: Plan, folders: Sequence[SeedFolder]) -> None:
    """Check that there are as many rows to train on as asked for, before anything is written."""
    for folder in folders if plan.train_rows is not None else ():
        parts = read_source(source.splits, Markers(), **_columns(source), seed=folder.seed, rows=None).parts
        there = len(parts[TRAIN].rows)
        if plan.train_rows is not None and plan.train_rows > there:
            carved = [name for name, part in parts.items() if part.split == TRAIN and name != TRAIN]
            why = "".join(f"; the {name} rows are {parts[name].origin}" for name in carved)
            raise UsageError(
                f"{{argument}} must lie in 1..{there}, the rows that are left to train on; got {plan.train_rows}{why}",
                argument="train_rows",
            )


def rehearse_rows(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any) -> set[int]:
    """Plant in memory what building would, in a few of the train rows: what building refuses, this refuses."""
    few = replace(plan, train_rows=min(FEW, plan.train_rows or FEW)) if plan.preset == "clean" else plan
    planted = []
    for code in plan.shortcuts:
        try:
            planted.append(_planted(source, few, folder, code, tokenizer))
        except UsageError:  # too few rows at all, or none of these few can hold the rule, but perhaps others
            planted.append(_planted(source, plan, folder, code, tokenizer))
    return _common(_measured_sets(source, plan, folder, tokenizer, planted[0]["original_dev"]))


def build_rows(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any, note: Note) -> None:
    """Make the training and test rows of every shortcut; what is there already stays."""
    for code in plan.shortcuts:
        place = folder.data(code)
        if place.exists():
            continue
        note(f"seed {folder.seed}: planting {code}")
        found = _planted(source, plan, folder, code, tokenizer)
        if found.dropped:
            note(f"seed {folder.seed}: {len(found.dropped)} rows left out for {code}, listed in {place}/shortcut.json")
        found.save(place)


def _planted(source: Source, plan: Plan, folder: SeedFolder, code: str, tokenizer: Any) -> ShortcutData:
    if plan.preset == "published":
        return published_data(source.splits, code, tokenizer, **_columns(source))
    return build_shortcut_data(
        source.splits,
        code,
        tokenizer,
        **_columns(source),
        seed=folder.seed,
        synthetic=plan.synthetic,
        distractors=plan.distractors,
        max_length=plan.max_length,
        rows=plan.train_rows,
    )


def write_measured_rows(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any, note: Note) -> None:
    """Write the rows that Fishers are measured on: originals, and for every shortcut the same rows conflicting."""
    # A row that cannot hold one of the conflicts is left out of all files, with a note.
    if folder.has_measured_rows(plan):
        return
    dev = ShortcutData.load(folder.data(plan.shortcuts[0]))["original_dev"]
    sets = _measured_sets(source, plan, folder, tokenizer, dev)
    count = len(sets[ORIGINAL])
    if plan.measured_rows is not None and count < plan.measured_rows:
        note(f"seed {folder.seed}: the development set has {count} rows, and all of them are measured")
    common = _common(sets)
    if len(common) < count:
        note(f"seed {folder.seed}: {count - len(common)} of {count} rows cannot hold every conflict, left out")
    for name, rows in sets.items():
        lines = [
            json.dumps({"text": row[source.text], "label": int(row[source.label]), "source_row": row["source_row"]})
            for row in rows
            if row["source_row"] in common
        ]
        folder.measured(name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder.measured(name), "\n".join(lines) + "\n")


def _common(sets: Mapping[str, Any]) -> set[int]:
    return set.intersection(*(set(rows["source_row"]) for rows in sets.values()))


def _measured_sets(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any, dev: Any) -> dict[str, Any]:
    if plan.preset == "clean":
        count = len(dev) if plan.measured_rows is None else min(plan.measured_rows, len(dev))
        original = dev.select(choose_rows(len(dev), count, folder.seed))
        given = _columns(source) | {"seed": folder.seed, "max_length": plan.max_length}
        return {ORIGINAL: original} | {
            code: conflicting_rows(original, code, tokenizer, **given) for code in plan.shortcuts
        }
    rows = source.splits["validation"]
    count = len(rows) if plan.measured_rows is None else plan.measured_rows
    if count > len(rows):
        raise UsageError(
            f"{{argument}} must lie in 1..{len(rows)}, the development rows; got {count}", argument="measured_rows"
        )
    given = _columns(source) | {"rows": count}
    return {ORIGINAL: published_originals(rows, **given)} | {
        code: published_conflicting(rows, code, tokenizer, **given) for code in plan.shortcuts
    }


def _columns(source: Source) -> dict[str, Any]:
    return {"text_column": source.text, "label_column": source.label}


def random_labels(rows: Any, label: str, classes: int, seed: int) -> Any:
    """Replace the labels of rows by fair draws: what is learned from them has nothing to do with the texts."""
    draw = random.Random(f"commonweight random labels {seed}")  # noqa: S311
    labels = [draw.randrange(classes) for _ in range(len(rows))]
    feature = rows.features[label]
    return rows.remove_columns(label).add_column(label, labels).cast_column(label, feature)
