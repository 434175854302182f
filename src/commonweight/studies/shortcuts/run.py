"""A study of shortcuts from texts to tables, step by step; a step that was done before is not done again."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from commonweight import __version__
from commonweight.data.splits import open_source
from commonweight.errors import IntegrityError, UsageError
from commonweight.studies.hold import held
from commonweight.studies.measure import silent
from commonweight.studies.run_folder import RunFolder, check_place
from commonweight.studies.run_record import RECORD
from commonweight.studies.shortcuts.adopt import adopt
from commonweight.studies.shortcuts.averages import make_averages
from commonweight.studies.shortcuts.grid import measure_grid
from commonweight.studies.shortcuts.plan import RANDOM_LABELS, START, seed_folders
from commonweight.studies.shortcuts.results import FORMAT, VERSION, gather
from commonweight.studies.shortcuts.rows import build_rows, random_labels, write_measured_rows
from commonweight.studies.shortcuts.start import make_start
from commonweight.studies.shortcuts.training import fine_tune
from commonweight.studies.shortcuts.walks import score_models, walk

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.data.splits import Source
    from commonweight.studies.measure import Note
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder
    from commonweight.studies.shortcuts.results import ShortcutStudy

Step = Literal["build", "train", "fuse", "fisher", "overlap"]
STEPS: tuple[Step, ...] = ("build", "train", "fuse", "fisher", "overlap")


def run_study(
    run: Path, plan: Plan, *, until: Step = "overlap", progress: bool = False, note: Note = silent
) -> ShortcutStudy | None:
    """Do a study, or go on with one; every step needs those before it, and does what of them is missing.

    The run folder holds ``run.json`` and per seed ``data/``, ``measured/``, ``models/``, ``averages/``,
    ``fisher-<label rule>/``, ``scores.json`` and ``paths.json``; at the end ``study.json``.

    Args:
        run: The run folder.
        plan: What is asked.
        until: The last step to do.
        progress: Show progress bars on stderr.
        note: Takes one sentence at a time that the user should hear.

    Returns:
        What was found; None if a step before ``overlap`` is the last.

    Raises:
        UsageError: If the folder holds something else, or the models or texts do not serve.
    """
    steps = STEPS[: STEPS.index(until) + 1]
    check_place(run)
    source = open_source(plan.data, text_column=plan.text_column, label_column=plan.label_column)
    with held(run) as hold:
        if hold.busy:
            raise UsageError(f"another process works in {run}; wait for it, or choose another run folder")
        folder = _open(run, plan, source)
        plan = replace(plan, seeds=folder.record["seeds"])
        seeds = seed_folders(run, plan)
        for seed in seeds:
            _build(source, plan, seed, note)
        if "train" in steps:
            for seed in seeds:
                _train(source, plan, seed, progress, note)
        if "fuse" in steps:
            for seed in seeds:
                make_averages(plan, seed, note)
                score_models(plan, seed, note)
                walk(plan, seed, note)
        if "fisher" in steps:
            for seed in seeds:
                measure_grid(plan, seed, progress=progress, note=note)
        if "overlap" not in steps:
            folder.update(status=f"done: {until}")
            return None
        found = gather(plan, seeds)
        folder.write("study.json", found.to_json())
        folder.update(status="complete")
        return found


def _open(run: Path, plan: Plan, source: Source) -> RunFolder:
    asked = json.loads(json.dumps(plan.deciding() | {"data_sha256": _content(source)}))
    former: dict[str, Any] = {}
    if (run / RECORD).is_file():
        try:
            former = json.loads((run / RECORD).read_text(encoding="utf-8"))
        except ValueError as error:
            raise IntegrityError(f"{run / RECORD} is damaged ({error}); choose another folder") from error
        if former.get("format") != FORMAT or former.get("version") != VERSION:
            raise UsageError(f"{run} holds a run of another kind, {former.get('format')}; choose another folder")
        if not any(run.glob("seed-*/models/*")):
            former = {}
        changed = [
            f"{key} was {former['plan'].get(key)!r}, is now {value!r}"
            for key, value in asked.items()
            if former and former["plan"].get(key) != value
        ]
        if changed:
            raise UsageError(f"{run} holds a study of something else: {'; '.join(changed)}. Choose another folder")
    packages = ("torch", "transformers", "datasets")
    folder = RunFolder(run, {"format": FORMAT, "version": VERSION})
    folder.update(
        status="running",
        plan=asked,
        seeds=max(plan.seeds, former.get("seeds", 0)),
        versions={"python": platform.python_version(), "commonweight": __version__}
        | {name: version(name) for name in packages},
    )
    return folder


def _content(source: Source) -> str:
    digest = hashlib.sha256()
    for name, rows in source.splits.items():
        for text, label in zip(rows[source.text], rows[source.label], strict=True):
            digest.update(json.dumps([name, text, label]).encode())
    return digest.hexdigest()


def _build(source: Source, plan: Plan, folder: SeedFolder, note: Note) -> None:
    from transformers import AutoTokenizer

    start = folder.model(START)
    if not start.exists():
        note(f"seed {folder.seed}: making the common start from {plan.model}")
        make_start(plan.model, source.classes, folder.seed, start, plan.preset)
    tokenizer = AutoTokenizer.from_pretrained(start)
    build_rows(source, plan, folder, tokenizer, note)
    write_measured_rows(source, plan, folder, tokenizer, note)


def _train(source: Source, plan: Plan, folder: SeedFolder, progress: bool, note: Note) -> None:
    import datasets

    existing = dict(plan.existing)
    for name in (*plan.shortcuts, RANDOM_LABELS):
        place = folder.model(name)
        if place.exists():
            continue
        if name in existing:
            adopt(existing[name], folder.model(START), place)
            note(f"seed {folder.seed}: {name} is {existing[name]}")
            continue
        rows = datasets.load_from_disk(str(folder.data(plan.shortcuts[0] if name == RANDOM_LABELS else name)))["train"]
        if name == RANDOM_LABELS:
            chosen = source.splits["train"].select(sorted(set(rows["source_row"])))
            rows = random_labels(chosen, source.label, len(source.classes), folder.seed)
        note(f"seed {folder.seed}: training {name} on {len(rows)} rows")
        fine_tune(folder.model(START), rows, source.text, source.label, plan, folder.seed, place, bar=progress)
