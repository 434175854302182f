"""Every model on every data set, and all overlaps: two models on shared data, or two tasks in one network."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight import __version__
from commonweight.data.table import Table, open_table
from commonweight.errors import IntegrityError, MeasurementError, UsageError
from commonweight.footprint.files import RECORD as FOOTPRINT_RECORD
from commonweight.footprint.footprint import Footprint
from commonweight.nn.source import LoadOptions
from commonweight.overlaps.table import OverlapTable, overlap
from commonweight.studies.hold import held
from commonweight.studies.measure import MeasureOptions, Note, measure, silent
from commonweight.studies.names import Model, keep_names, name_models, named_data
from commonweight.studies.output import check_writable
from commonweight.studies.preflight import inspect_models, load
from commonweight.studies.run_folder import FOOTPRINTS, RunFolder, check_place, open_run
from commonweight.studies.run_record import read_record, same_identity
from commonweight.studies.throw_away import check_outside, remove_partial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.nn.source import LoadedModel


@dataclass(frozen=True)
class CompareOptions:
    """How models are read, data chosen, and Fishers measured: the same for every cell."""

    load: LoadOptions = field(default_factory=LoadOptions)
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    checkpoints: tuple[str, ...] = ()
    """One ``.safetensors`` file for every ``module:function`` among the models, in their order; or none at all."""

    split: str | None = None
    examples: int | None = None
    data_seed: int = 0
    """Names the choice of examples."""

    common_only: bool = False
    """Compare only parameters of equal name and shape."""


@dataclass(frozen=True)
class Comparison:
    """What a run found."""

    folder: Path
    table: OverlapTable
    measured: tuple[str, ...]
    """Names of the footprints measured now."""

    skipped: tuple[str, ...]
    """Names of those that were there already."""


def compare(
    models: Sequence[str],
    data: Sequence[str],
    run: str | Path,
    options: CompareOptions | None = None,
    *,
    fresh: bool = False,
    progress: bool = False,
    note: Note = silent,
) -> Comparison:
    """Measure every model on every data set and compare all footprints.

    The run folder holds ``run.json``, ``footprints/<model>/<data>/``, ``overlap.json`` and ``overlap.md``. Calling
    again with the same arguments measures only what is missing. Everything that can be checked without measuring is
    checked first, for every model and every data set. Small models stay in memory from then on; large ones are loaded
    again, one at a time (:func:`~commonweight.studies.preflight.inspect_models`).

    Args:
        models: As for :func:`commonweight.nn.source.load_model`, each with ``NAME=`` before it if wanted.
        data: As for :func:`commonweight.data.table.open_table`, each with ``NAME=`` before it if wanted.
        run: The run folder, or a link to it.
        options: How.
        fresh: Throw away the footprints and tables of a run that is there.
        progress: Show progress bars on stderr.
        note: Takes one sentence at a time that the user should hear.

    Returns:
        The table of all ``model/data`` pairs.

    Raises:
        UsageError: If models or data cannot be read, fewer than two footprints are asked for, or the folder holds
            something else, cannot be written to, or may not be thrown away.
        NotComparableError: If the models do not have the same parameters; found before anything is measured.
        IntegrityError: If a footprint of the run is damaged or not what the run says.
    """
    options = options or CompareOptions()
    folder = Path(run)
    named, sources = name_models(models, options.checkpoints), named_data(data)
    if len(models) * len(data) < 2:
        raise UsageError(
            f"{len(models)} model on {len(data)} data set gives one footprint; give a second model or --data"
        )
    check_place(folder)
    check_writable(folder / FOOTPRINTS / "model" / "data")
    if fresh:
        check_outside(folder, [*(m.spec for m in named), *(s for _, s in sources), *options.checkpoints, Path.cwd()])
    former = {} if fresh else read_record(folder) or {}
    tables = {
        name: open_table(spec, split=options.split, examples=options.examples, seed=options.data_seed)
        for name, spec in sources
    }
    inspected = inspect_models(named, tables, options.load, options.measure, common_only=options.common_only, note=note)
    names = keep_names(named, inspected.identities, former.get("models", {}))
    asked = {
        "settings": options.measure.deciding() | {"dtype": options.load.dtype, "tokenizer": options.load.tokenizer},
        "models": dict(zip(names, inspected.identities, strict=True)),
        "data": {name: table.identity for name, table in tables.items()},
    }
    with held(folder) as hold:
        if fresh and hold.busy:
            raise UsageError(f"another process is measuring into {folder}; wait for it, or choose another run folder")
        opened = open_run(folder, asked, fresh=fresh)
        if hold.alone:
            remove_partial(opened.path)
        hold.share()
        opened.update(versions=_versions())
        models_by_name = dict(zip(names, named, strict=True))
        return _measure_all(opened, models_by_name, inspected.loaded, tables, options, progress, note)


def _measure_all(
    run: RunFolder,
    models: Mapping[str, Model],
    waiting: dict[Model, LoadedModel],
    tables: Mapping[str, Table],
    options: CompareOptions,
    progress: bool,
    note: Note,
) -> Comparison:
    found: dict[str, Footprint] = {}
    measured: set[str] = set()
    # Models in memory come first, and go when they are measured: the others are loaded one at a time.
    for model in sorted(models, key=lambda name: models[name] not in waiting):
        loaded = waiting.pop(models[model], None)
        for data, table in tables.items():
            name = f"{model}/{data}"
            place = run.footprint_folder(name)
            if place.exists():
                found[name] = _finished(place, run.record["models"][model], run.record["data"][data])
                note(f"{name}: measured before")
                continue
            if loaded is None:
                loaded = load(models[model], options.load)
                if not same_identity(run.record["models"][model], loaded.identity):
                    raise MeasurementError(
                        f"{models[model].spec} is not what it was when it was read first: its files changed meanwhile, "
                        "or its weights are drawn anew each time; start again from weights that stay"
                    )
            note(f"{name}: measuring {len(table)} examples")
            try:
                found[name] = measure(loaded, table, options.measure, folder=place, progress=progress, note=note)
                measured.add(name)
            except (UsageError, OSError):
                if not (place / FOOTPRINT_RECORD).is_file():
                    raise
                found[name] = _finished(place, run.record["models"][model], run.record["data"][data])
                note(f"{name}: another process finished it meanwhile; its footprint is taken")
        del loaded  # before the next is read
    footprints = {name: found[name] for name in (f"{model}/{data}" for model in models for data in tables)}
    overlaps = overlap(footprints, common_only=options.common_only)
    run.write("overlap.json", overlaps.to_json())
    run.write("overlap.md", overlaps.to_markdown())
    run.update(
        status="complete",
        footprints={name: str(run.footprint_folder(name).relative_to(run.path)) for name in footprints},
    )
    return Comparison(
        run.path,
        overlaps,
        measured=tuple(name for name in footprints if name in measured),
        skipped=tuple(name for name in footprints if name not in measured),
    )


def _finished(place: Path, model: Mapping[str, Any], data: Mapping[str, Any]) -> Footprint:
    footprint = Footprint.load(place)
    found = dict(footprint.metadata.get("data", {}))
    found.pop("columns", None)
    # Beside the identity a footprint records what was measured of the model.
    recorded = {key: value for key, value in dict(footprint.metadata.get("model", {})).items() if key in model}
    if not same_identity(recorded, model) or not same_identity(found, data):
        raise IntegrityError(f"{place} was measured on another model or other data than its run says; pass --fresh")
    return footprint


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "datasets")
    return {"python": platform.python_version(), "commonweight": __version__} | {name: version(name) for name in names}
