"""The rows of a study: what models are trained and tested on, and what their Fishers are measured on."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from commonweight.data.shortcuts import (
    ShortcutData,
    build_shortcut_data,
    contradict,
    published_contradicted,
    published_data,
    published_originals,
)
from commonweight.data.table import choose_rows
from commonweight.studies.shortcuts.plan import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commonweight.data.splits import Source
    from commonweight.studies.measure import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder


def build_rows(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any, note: Note) -> None:
    """Make the training and test rows of every shortcut; what is there already stays.

    Args:
        source: The texts.
        plan: Shares and sizes.
        folder: The seed.
        tokenizer: The start's, with the markers.
        note: Takes one sentence at a time that the user should hear.
    """
    for code in plan.shortcuts:
        place = folder.data(code)
        if place.exists():
            continue
        note(f"seed {folder.seed}: planting {code}")
        columns: dict[str, Any] = {"text_column": source.text, "label_column": source.label}
        if plan.preset == "published":
            found = published_data(source.splits, code, tokenizer, **columns)
        else:
            found = build_shortcut_data(
                source.splits,
                code,
                tokenizer,
                **columns,
                seed=folder.seed,
                synthetic=plan.synthetic,
                distractors=plan.distractors,
                max_length=plan.max_length,
                rows=plan.train_rows,
            )
        if found.dropped:
            note(f"seed {folder.seed}: {len(found.dropped)} rows left out for {code}, listed in {place}/shortcut.json")
        found.save(place)


def write_measured_rows(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any, note: Note) -> None:
    """Write the rows that Fishers are measured on: originals, and for every shortcut the same rows contradicted.

    A row that cannot hold one of the contradictions is left out of all files, and that is said.

    Args:
        source: The texts.
        plan: How many rows.
        folder: The seed.
        tokenizer: The start's, with the markers.
        note: Takes one sentence at a time that the user should hear.
    """
    places = {name: folder.measured(name) for name in (ORIGINAL, *plan.shortcuts)}
    if all(place.is_file() for place in places.values()):
        return
    sets = (_published_sets if plan.preset == "published" else _clean_sets)(source, plan, folder, tokenizer)
    count = len(sets[ORIGINAL])
    if plan.measured_rows is not None and count < plan.measured_rows:
        note(f"seed {folder.seed}: the development set has {count} rows, and all of them are measured")
    common = set.intersection(*(set(rows["source_row"]) for rows in sets.values()))
    if len(common) < count:
        note(f"seed {folder.seed}: {count - len(common)} of {count} rows cannot hold every contradiction, left out")
    for name, rows in sets.items():
        places[name].parent.mkdir(parents=True, exist_ok=True)
        _write(places[name], (row for row in rows if row["source_row"] in common), source)


def _published_sets(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any) -> dict[str, Any]:  # noqa: ARG001
    columns: dict[str, Any] = {
        "text_column": source.text,
        "label_column": source.label,
        "rows": len(source.splits["validation"]) if plan.measured_rows is None else plan.measured_rows,
    }
    rows = source.splits["validation"]
    reversed_rows = {code: published_contradicted(rows, code, tokenizer, **columns) for code in plan.shortcuts}
    return {ORIGINAL: published_originals(rows, **columns), **reversed_rows}


def _clean_sets(source: Source, plan: Plan, folder: SeedFolder, tokenizer: Any) -> dict[str, Any]:
    dev = ShortcutData.load(folder.data(plan.shortcuts[0]))["original_dev"]
    count = len(dev) if plan.measured_rows is None else min(plan.measured_rows, len(dev))
    original = dev.select(choose_rows(len(dev), count, folder.seed))
    sets = {ORIGINAL: original}
    for code in plan.shortcuts:
        sets[code] = contradict(
            original,
            code,
            tokenizer,
            text_column=source.text,
            label_column=source.label,
            seed=folder.seed,
            max_length=plan.max_length,
        )
    return sets


def random_labels(rows: Any, label: str, classes: int, seed: int) -> Any:
    """Replace the labels of rows by fair draws: what is learned from them has nothing to do with the texts.

    Args:
        rows: A ``datasets.Dataset``.
        label: Column of class numbers.
        classes: How many classes there are.
        seed: Names the draws.

    Returns:
        The rows with other labels.
    """
    draw = random.Random(f"commonweight random labels {seed}")  # noqa: S311
    labels = [draw.randrange(classes) for _ in range(len(rows))]
    feature = rows.features[label]
    return rows.remove_columns(label).add_column(label, labels).cast_column(label, feature)


def _write(place: Any, rows: Iterable[dict[str, Any]], source: Source) -> None:
    lines = [
        json.dumps({"text": row[source.text], "label": int(row[source.label]), "source_row": row["source_row"]})
        for row in rows
    ]
    partial = place.with_name(f".{place.name}.partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(place)
