"""Going on with a study: whose question a run folder holds, what of it is missing, and what of it may be made anew."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.version import __version__
from commonweight.models.identity import digest_of, origin
from commonweight.models.tokenizer import tokenizer_hashes
from commonweight.studies.run.folder import RunFolder
from commonweight.studies.run.hold import held
from commonweight.studies.run.record import study_record
from commonweight.studies.shortcuts.averages import are_scored, has_walks
from commonweight.studies.shortcuts.grid import has_measured_rows, is_measured
from commonweight.studies.shortcuts.plan import START
from commonweight.studies.shortcuts.results import FORMAT, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.splits import Source
    from commonweight.studies.shortcuts.plan import Plan, SeedFolder

CONTENT = "data_sha256"
"""Key of the record: which texts the rows were made from."""

MODEL = "SHA-256"
"""Beginning of the keys that say which checkpoints the models were made from."""

RESULT = "study.json"
ANEW = ("models", "data", "measured")
"""What a corrected plan makes anew in every seed folder, as long as nothing was trained."""

PACKAGES = ("torch", "transformers", "datasets")


def former_record(run: Path) -> dict[str, Any]:
    """Read what a run folder belongs to."""
    return study_record(run, FORMAT, VERSION)


def changes(run: Path, former: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """List what a plan asks in another way than the run does; a run in which nothing was trained may be asked anew."""
    if not former:
        return []
    plain = json.loads(json.dumps(asked))
    found = [
        f"{key} was {former['plan'].get(key)!r}, is now {value!r}"
        for key, value in plain.items()
        if former["plan"].get(key) != value
    ]
    if found and (made := _seeds_with_work(run, former)):
        folders = " and ".join(str(seed) for seed in made)
        raise UsageError(
            f"{run} holds a study of something else: {'; '.join(found)}. Choose another folder for this plan; or, to "
            f"begin anew in this one, first remove {folders}, with the models that were trained for the former plan"
        )
    return found


def planned_changes(run: Path, former: Mapping[str, Any], plan: Plan) -> list[str]:
    """List what a plan asks in another way than the run does, before this process works in the folder."""
    try:
        return changes(run, former, plan.deciding() | (_folders(plan, former) if former else {}))
    except UsageError:
        with held(run) as hold:
            refuse_busy(run, busy=hold.busy)  # nothing may be removed then
        raise


def with_former(plan: Plan, former: Mapping[str, Any]) -> Plan:
    """Add to a plan what a run of the same plan has beside it."""
    return replace(
        plan,
        seeds=max(plan.seeds, former.get("seeds", 0)),
        independent_initialisation=plan.independent_initialisation or former.get("independent_initialisation", False),
    )


def refuse_busy(run: Path, *, busy: bool) -> None:
    """Refuse a folder that another process works in."""
    if busy:
        raise UsageError(f"another process works in {run}; wait for it, or choose another run folder")


def is_finished(run: Path, plan: Plan, seeds: Sequence[SeedFolder]) -> bool:
    """Tell whether everything a study tells lies in its folder."""
    return (run / RESULT).is_file() and all(
        are_scored(plan, seed)
        and has_measured_rows(plan, seed)
        and has_walks(seed.paths)
        and (not plan.triangle or seed.triangle.is_file())
        and all(is_measured(plan, seed, rule) for rule in plan.fisher_types)
        for seed in seeds
    )


def needs_texts(plan: Plan, seeds: Sequence[SeedFolder], *, train: bool) -> bool:
    """Tell whether something has yet to be made from the texts."""
    existing = {code for code, _ in plan.existing}
    trained = [name for name in plan.trained if train and name not in existing]
    return not all(
        place.exists()
        for seed in seeds
        for place in (
            *(seed.model(name) for name in (START, *trained)),
            *(seed.data(code) for code in plan.shortcuts),
        )
    ) or not all(has_measured_rows(plan, seed) for seed in seeds)


def open_study(run: Path, plan: Plan, former: Mapping[str, Any], source: Source | None, note: Note) -> RunFolder:
    """Write down whose study a folder holds; what an earlier plan left there before anything was trained goes."""
    asked = plan.deciding() | {CONTENT: content_hash(source) if source else former["plan"][CONTENT]}
    asked |= _folders(plan, former)
    if found := changes(run, former, asked):
        note(f"nothing was trained for the former plan, so its starts and rows are made anew: {'; '.join(found)}")
        for place in [place for seed in run.glob("seed-*") for name in ANEW if (place := seed / name).is_dir()]:
            shutil.rmtree(place)
    folder = RunFolder(run, {"format": FORMAT, "version": VERSION})
    versions = {"python": platform.python_version(), "commonweight": __version__}
    folder.update(
        status="running",
        plan=json.loads(json.dumps(asked)),
        seeds=plan.seeds,
        independent_initialisation=plan.independent_initialisation,
        versions=versions | {name: version(name) for name in PACKAGES},
    )
    return folder


def content_hash(source: Source) -> str:
    """Hash the texts and labels of all splits."""
    digest = hashlib.sha256()
    for name, rows in source.splits.items():
        for text, label in zip(rows[source.text], rows[source.label], strict=True):
            digest.update(json.dumps([name, text, label]).encode())
    return digest.hexdigest()


def _folders(plan: Plan, former: Mapping[str, Any]) -> dict[str, Any]:
    """Hash the checkpoints that a plan names; of a folder that is gone it is what the run says, if it does."""
    named = {f"{MODEL} of {code}": folder for code, folder in (("the start", plan.model), *plan.existing)}
    places = {key: Path(folder).expanduser() for key, folder in named.items()}
    said = {key: value for key, value in former.get("plan", {}).items() if key.startswith(MODEL)}
    now = {
        key: digest_of([origin(str(place), None), tokenizer_hashes(str(place))])
        for key, place in places.items()
        if (place / "config.json").is_file() and (not former or key in said)
    }
    return said | now


def _seeds_with_work(run: Path, former: Mapping[str, Any]) -> list[Path]:
    """List the seed folders that hold what takes time: trained models, trainings that were saved, results."""
    copied = {START, *(code for code, _ in former["plan"].get("existing", []))}
    found = []
    for seed in sorted(place for place in run.glob("seed-*") if place.is_dir()):
        models = [place for place in seed.glob("models/*") if not place.name.startswith(".")]
        if (
            any(place.name not in copied for place in models)
            or any(seed.glob("models/.*.training/checkpoint-*/trainer_state.json"))
            or any(place.name not in ANEW and not place.name.startswith(".") for place in seed.iterdir())
        ):
            found.append(seed)
    return found
