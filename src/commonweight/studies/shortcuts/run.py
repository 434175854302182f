"""A study of shortcuts from texts to tables, step by step; a step that was done before is not done again."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

from commonweight.base.text import silent
from commonweight.data.shortcuts.record import without_bars
from commonweight.data.splits import open_source
from commonweight.studies.compare.prepare import length_limit
from commonweight.studies.run.folder import check_place
from commonweight.studies.run.hold import held
from commonweight.studies.shortcuts.adopt import adopt_existing
from commonweight.studies.shortcuts.averages import score_models, walk, walk_triangle, write_average
from commonweight.studies.shortcuts.grid import measure_grid
from commonweight.studies.shortcuts.opening import (
    RESULT,
    former_record,
    is_finished,
    needs_texts,
    open_study,
    planned_changes,
    refuse_busy,
    with_former,
)
from commonweight.studies.shortcuts.outlook import check_measured_rows, missing
from commonweight.studies.shortcuts.plan import CONTROLS, INDEPENDENT, RANDOM_LABELS, START, seed_folders
from commonweight.studies.shortcuts.results import gather
from commonweight.studies.shortcuts.rows import build_rows, check_train_rows, random_labels, write_measured_rows
from commonweight.studies.shortcuts.start import independent_initialisation, make_start, read_encoder
from commonweight.studies.shortcuts.training import fine_tune

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.data.splits import Source
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder
    from commonweight.studies.shortcuts.results import ShortcutStudy

Step = Literal["build", "train", "fuse", "fisher", "overlap"]
STEPS: tuple[Step, ...] = ("build", "train", "fuse", "fisher", "overlap")


def run_study(
    run: Path, plan: Plan, *, until: Step = "overlap", progress: bool = False, note: Note = silent
) -> ShortcutStudy | None:
    """Do a study, or go on with one; every step needs those before it, and does what of them is missing."""
    # The run folder holds ``run.json`` and per seed ``data/``, ``measured/``, ``models/``, ``averages/`` (the average
    # of
    # all models), ``fisher-<Fisher type>/``, ``scores.json``, ``paths.json`` and, with three shortcuts or more,
    # ``triangle.json``; at the end ``study.json``. The texts are read only as long as rows or models are to be made
    # from
    # them; a study that is finished is read from its folder. Tables and figures are not written:
    # :func:`~commonweight.studies.shortcuts.write.run_and_write` does both, as the command does.
    #
    # Another plan in the same folder is refused once a model was trained; until then starts and rows are made anew.
    # More
    # seeds, and the control with an independent initialisation, may be added at any time, and stay.
    with without_bars(shown=progress):
        check_place(run)
        former = former_record(run)
        is_new = bool(planned_changes(run, former, plan))
        plan = plan if is_new else with_former(plan, former)
        seeds = seed_folders(run, plan)
        if until == "overlap" and former and not is_new and is_finished(run, plan, seeds):
            note(f"the study in {run} is finished; it is read from there")
            return gather(plan, seeds)
        source = None
        if not former or is_new or needs_texts(plan, seeds, train=until != "build"):
            if is_new or not all(seed.model(START).exists() for seed in seeds):
                read_encoder(
                    plan.model, trust=plan.trust_remote_code
                )  # what cannot be read is said before the texts are asked for
            source = open_source(plan.data, text_column=plan.text_column, label_column=plan.label_column)
            check_train_rows(source, plan, [seed for seed in seeds if is_new or not seed.has_data(plan)])
        with held(run) as hold:
            refuse_busy(run, busy=hold.busy)
            hold.share()  # so that another process is refused at once, and does not wait for the end
            folder = open_study(run, plan, former, source, note)
            _do(run, STEPS[: STEPS.index(until) + 1], plan, seeds, source, progress, note)
            if until != "overlap":
                folder.update(status=f"done: {until}")
                return None
            found = gather(plan, seeds)
            folder.write(RESULT, found.to_json())
            folder.update(status="complete")
            return found


def _do(
    run: Path,
    steps: tuple[Step, ...],
    plan: Plan,
    seeds: list[SeedFolder],
    source: Source | None,
    progress: bool,
    note: Note,
) -> None:
    if source is not None:
        for seed in seeds:
            _build(source, plan, seed, note)
    check_measured_rows(plan, seeds)
    if "fisher" in steps:
        _say_what_it_takes(run, plan, seeds, note)
    if "train" in steps:
        for seed in seeds:
            adopt_existing(plan, seed, note)
    if "train" in steps and source is not None:
        for seed in seeds:
            _train(source, plan, seed, progress, note)
    if "fuse" in steps:
        for seed in seeds:
            write_average(plan, seed, note)
            score_models(plan, seed, note)
            walk(plan, seed, note)
            walk_triangle(plan, seed, note)
    if "fisher" in steps:
        for seed in seeds:
            measure_grid(plan, seed, progress=progress, note=note)


def _say_what_it_takes(run: Path, plan: Plan, seeds: list[SeedFolder], note: Note) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(seeds[0].model(START), trust_remote_code=plan.trust_remote_code)
    expected = missing(run, plan, seeds, config)
    if expected.footprints:
        note(expected.sentence())
        expected.check()


def _build(source: Source, plan: Plan, folder: SeedFolder, note: Note) -> None:
    start = folder.model(START)
    if not start.exists():
        note(f"seed {folder.seed}: making the shared initialisation from {plan.model}")
        make_start(plan.model, source.classes, folder.seed, start, plan.preset, trust=plan.trust_remote_code)
    config, tokenizer = read_encoder(str(start), trust=plan.trust_remote_code)
    length_limit(config, tokenizer, plan.max_length)  # refuses what cannot be read
    build_rows(source, plan, folder, tokenizer, note)
    write_measured_rows(source, plan, folder, tokenizer, note)


def _train(source: Source, plan: Plan, folder: SeedFolder, progress: bool, note: Note) -> None:
    import datasets

    for name in plan.trained:
        place = folder.model(name)
        if place.exists():
            continue
        of = plan.shortcuts[0] if name in CONTROLS else name
        rows = datasets.load_from_disk(str(folder.data(of)))["train"]
        if name == RANDOM_LABELS:
            chosen = source.splits["train"].select(sorted(set(rows["source_row"])))
            rows = random_labels(chosen, source.label, len(source.classes), folder.seed)
        note(f"seed {folder.seed}: training {name} on {len(rows)} rows")
        begin = (
            independent_initialisation(folder, trust=plan.trust_remote_code)
            if name == INDEPENDENT
            else nullcontext(folder.model(START))
        )
        with begin as start:
            fine_tune(start, rows, source.text, source.label, plan, folder.seed, place, bar=progress)
