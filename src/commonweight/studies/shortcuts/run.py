"""A study of shortcuts from texts to tables, step by step; a step that was done before is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from commonweight.base.errors import UsageError
from commonweight.base.team import led, team_here
from commonweight.base.text import silent
from commonweight.data.shortcuts import Markers
from commonweight.data.shortcuts.record import without_bars
from commonweight.data.splits import open_source
from commonweight.models.identity import digest_of, origin
from commonweight.models.tokenizer import tokenizer_hashes
from commonweight.report.answer import write_result
from commonweight.report.files import write_figures
from commonweight.studies.compare.prepare import length_limit
from commonweight.studies.run.cluster import check_scheduler, do_all
from commonweight.studies.run.folder import check_place, open_run
from commonweight.studies.run.hold import held_alone, waited_for
from commonweight.studies.run.record import StudyKind, differences, read_record, refuse_another
from commonweight.studies.run.results import RESULT
from commonweight.studies.shortcuts.answer import result
from commonweight.studies.shortcuts.figures import figures_of
from commonweight.studies.shortcuts.grid import (
    check_folds,
    check_measured_rows,
    is_measured,
    measure_grid,
    missing,
    probe,
    rows_to_pass,
)
from commonweight.studies.shortcuts.models import (
    adopt_existing,
    check_head,
    fine_tune,
    independent_initialisation,
    make_start,
    read_encoder,
    rehearse_existing,
)
from commonweight.studies.shortcuts.plan import CONTROLS, INDEPENDENT, ORIGINAL, RANDOM_LABELS, START, seed_folders
from commonweight.studies.shortcuts.results import gather
from commonweight.studies.shortcuts.rows import (
    build_rows,
    check_train_rows,
    random_labels,
    rehearse_rows,
    write_measured_rows,
)
from commonweight.studies.shortcuts.scoring import (
    are_scored,
    has_walks,
    score_models,
    walk,
    walk_triangle,
    write_average,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.splits import Source
    from commonweight.footprints.folds import Needs
    from commonweight.studies.run.folder import RunFolder
    from commonweight.studies.run.outlook import Outlook
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder
    from commonweight.studies.shortcuts.results import ShortcutStudy

Step = Literal["build", "train", "fuse", "fisher", "overlap"]
STEPS: tuple[Step, ...] = get_args(Step)

CONTENT = "data_sha256"
"""Key of the record: which texts the rows were made from."""

MODEL = "SHA-256"
"""Beginning of the keys that say which checkpoints the models were made from."""

ANEW = ("models", "data", "measured")
"""What a corrected plan makes anew in every seed folder, as long as nothing was trained."""
SHORTCUTS = StudyKind("shortcuts", ("torch", "transformers", "datasets"))


@led
def run_study(
    run: Path, plan: Plan, *, until: Step = "overlap", scheduler: str | None = None, note: Note = silent
) -> ShortcutStudy | None:
    """Do a study, or go on with one; every step needs those before it, and does what of them is missing."""
    # The run folder holds ``run.json`` and per seed ``data/``, ``measured/``, ``models/``, ``averages/`` (the average
    # of all models), ``fisher-<Fisher type>/``, ``scores.json``, ``paths.json`` and, with three shortcuts or more,
    # ``triangle.json``; at the end ``study.json``. The texts are read only as long as rows or models are to be made
    # from them; a study that is finished is read from its folder.
    #
    # Another plan in the same folder is refused once a model was trained; until then starts and rows are made anew.
    # More seeds, and the control with an independent initialisation, may be added at any time, and stay.
    check_scheduler(scheduler)
    with without_bars():
        check_place(run)
        former = read_record(run, SHORTCUTS)
        is_new = bool(planned_changes(run, former, plan))
        plan = plan.grown(run, former["grown"]) if former and not is_new else plan
        seeds = seed_folders(run, plan)
        if until == "overlap" and former and not is_new and is_finished(run, plan, seeds):
            note(f"the study in {run} is finished; it is read from there")
            return gather(plan, seeds)
        source = None
        if not former or is_new or needs_texts(plan, seeds, train=until != "build"):
            if is_new or not all(seed.model(START).exists() for seed in seeds):
                # what cannot be read is said before the texts are asked for
                read_encoder(plan.model, trust=plan.trust_remote_code)
            source = _source(plan)
            check_train_rows(source, plan, [seed for seed in seeds if is_new or not seed.has_data(plan)])
        with held_alone(run, note):
            folder = open_study(run, plan, former, source, note)
            with folder.working():
                if scheduler is not None:
                    of_seed = partial(_seed_item, run, until, plan, reads_texts=source is not None)
                    do_all(scheduler, {f"seed {seed.seed}": partial(of_seed, seed) for seed in seeds}, note)
                _do(run, until, plan, seeds, source, note)  # what is done is not done again
            if until != "overlap":
                folder.update(status=f"done: {until}")
                return None
            found = gather(plan, seeds)
            folder.finish(found.to_json())
            return found


def run_and_write(
    run: Path, plan: Plan, *, until: Step = "overlap", scheduler: str | None = None, note: Note = silent
) -> ShortcutStudy | None:
    """Do a study, or go on with one, and write its tables and figures: ``study.md`` and ``figures/``."""
    found = run_study(run, plan, until=until, scheduler=scheduler, note=note)
    if found is None:
        note(f"done with {until}; the run is in {run}")
        return None
    figures = write_figures(figures_of(found), run / "figures", note)
    write_result(run, result(found, run, figures))
    note(f"models, footprints, study.json, study.md and figures are in {run}")
    return found


def study_outlook(run: Path, plan: Plan, *, note: Note = silent) -> Outlook[Needs]:
    """Check a study without beginning it, and tell what it will take."""
    # Existing models are compared with the start; where it is not there yet, one is made in a temporary folder.
    check_place(run)
    is_new = bool(planned_changes(run, read_record(run, SHORTCUTS), plan))
    config, tokenizer = read_encoder(plan.model, trust=plan.trust_remote_code)
    source = _source(plan)
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
    texts = source.splits["train"][: plan.batch_size][source.text]
    rows = rows_to_pass(plan, seeds, source, found.pieces)
    return found.with_time(rows * probe(plan, config, tokenizer, texts), "train and measure") if rows else found


def planned_changes(run: Path, former: Mapping[str, Any], plan: Plan) -> list[str]:
    """List what a plan asks in another way than the run does, before this process works in the folder."""
    try:
        return changes(run, former, _asked(plan, former, former["asked"].get(CONTENT))) if former else []
    except UsageError:
        with held_alone(run, silent):  # else nothing may be removed
            raise


def changes(run: Path, former: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """List what a plan asks in another way than the run does; a run in which nothing was trained may be asked anew."""
    found = differences(former.get("asked", {}), asked)
    if found and (made := _seeds_with_work(run, former)):
        folders = " and ".join(str(seed) for seed in made)
        remedy = (
            f"Choose another folder for this plan; or, to begin anew in this one, first remove {folders}, with the "
            "models that were trained for the former plan"
        )
        refuse_another(run, found, remedy)
    return found


def is_finished(run: Path, plan: Plan, seeds: Sequence[SeedFolder]) -> bool:
    """Tell whether everything a study tells lies in its folder."""
    return (run / RESULT).is_file() and all(
        are_scored(plan, seed)
        and seed.has_measured_rows(plan)
        and has_walks(seed.paths)
        and (not plan.triangle or seed.triangle.is_file())
        and all(is_measured(plan, seed, rule) for rule in plan.fisher_types)
        for seed in seeds
    )


def needs_texts(plan: Plan, seeds: Sequence[SeedFolder], *, train: bool) -> bool:
    """Tell whether something has yet to be made from the texts."""
    models = [START, *({*plan.trained} - {*dict(plan.existing)} if train else ())]
    return not all(
        seed.has_data(plan) and seed.has_measured_rows(plan) and all(seed.model(name).exists() for name in models)
        for seed in seeds
    )


def open_study(run: Path, plan: Plan, former: Mapping[str, Any], source: Source | None, note: Note) -> RunFolder:
    """Write down whose study a folder holds; what an earlier plan left there before anything was trained goes."""
    asked = _asked(plan, former, content_hash(source) if source else former["asked"][CONTENT])
    if found := changes(run, former, asked):
        note(f"nothing was trained for the former plan, so its starts and rows are made anew: {'; '.join(found)}")
        for place in [place for seed in run.glob("seed-*") for name in ANEW if (place := seed / name).is_dir()]:
            shutil.rmtree(place)
    return open_run(run, SHORTCUTS, "running", asked, plan.growing())


def content_hash(source: Source) -> str:
    """Hash the texts and labels of all splits."""
    digest = hashlib.sha256()
    for name, rows in source.splits.items():
        for text, label in zip(rows[source.text], rows[source.label], strict=True):
            digest.update(json.dumps([name, text, label]).encode())
    return digest.hexdigest()


def _asked(plan: Plan, former: Mapping[str, Any], content: str | None) -> dict[str, Any]:
    """What a run may not change once a model was trained; of a checkpoint that is gone it is what the run says."""
    named = {f"{MODEL} of {code}": folder for code, folder in (("the start", plan.model), *plan.existing)}
    places = {key: Path(folder).expanduser() for key, folder in named.items()}
    said = {key: value for key, value in former.get("asked", {}).items() if key.startswith(MODEL)}
    now = {
        key: digest_of([origin(str(place), None), tokenizer_hashes(str(place))])
        for key, place in places.items()
        if (place / "config.json").is_file()
    }
    return plan.deciding() | {CONTENT: content} | said | now


def _seeds_with_work(run: Path, former: Mapping[str, Any]) -> list[Path]:
    """List the seed folders that hold what takes time: trained models, trainings that were saved, results."""
    copied = {START, *dict(former["asked"].get("existing", []))}

    def has_work(seed: Path) -> bool:
        return (
            any(place.name not in copied for place in seed.glob("models/[!.]*"))
            or any(seed.glob("models/.*.training/checkpoint-*/trainer_state.json"))
            or any(place.name not in ANEW for place in seed.glob("[!.]*"))
        )

    return sorted(seed for seed in run.glob("seed-*") if has_work(seed))


def _seed_item(run: Path, until: Step, plan: Plan, folder: SeedFolder, *, reads_texts: bool) -> None:
    """Do one seed in a worker of a cluster."""
    with without_bars(), waited_for(folder.path):  # a worker that Dask gave up may still write there
        _do(run, until, plan, [folder], _source(plan) if reads_texts else None, silent)


def _source(plan: Plan) -> Source:
    return open_source(plan.data, text_column=plan.text_column, label_column=plan.label_column)


def _do(run: Path, until: Step, plan: Plan, seeds: list[SeedFolder], source: Source | None, note: Note) -> None:
    steps = STEPS[: STEPS.index(until) + 1]
    if team_here().size > 1 and "train" in steps:
        waiting = [name for seed in seeds for name in plan.trained if not seed.model(name).exists()]
        if waiting:
            raise UsageError(
                f"{len(waiting)} models are to be trained, and one process trains: issue commonweight shortcuts train "
                "without a launcher first; then several processes share the Fishers"
            )
    if source is not None:
        for seed in seeds:
            _build(source, plan, seed, note)
    check_measured_rows(plan, seeds)
    if "fisher" in steps:
        config, _ = read_encoder(str(seeds[0].model(START)), trust=plan.trust_remote_code)
        expected = missing(run, plan, seeds, config)
        if expected.pieces:
            note(expected.sentence())
            expected.check()
    for seed in seeds if "train" in steps else ():
        adopt_existing(plan, seed, note)
    if "train" in steps and source is not None:
        for seed in seeds:
            _train(source, plan, seed, note)
    for seed in seeds if "fuse" in steps else ():
        write_average(plan, seed, note)
        score_models(plan, seed, note)
        walk(plan, seed, note)
        walk_triangle(plan, seed, note)
    for seed in seeds if "fisher" in steps else ():
        measure_grid(plan, seed, note=note)


def _build(source: Source, plan: Plan, folder: SeedFolder, note: Note) -> None:
    start = folder.model(START)
    if not start.exists():
        note(f"seed {folder.seed}: making the shared initialisation from {plan.model}")
        make_start(plan.model, source.classes, folder.seed, start, plan.preset, trust=plan.trust_remote_code)
    config, tokenizer = read_encoder(str(start), trust=plan.trust_remote_code)
    length_limit(config, tokenizer, plan.max_length)  # refuses what cannot be read
    build_rows(source, plan, folder, tokenizer, note)
    write_measured_rows(source, plan, folder, tokenizer, note)


def _train(source: Source, plan: Plan, folder: SeedFolder, note: Note) -> None:
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
            fine_tune(start, rows, source.text, source.label, plan, folder.seed, place)
