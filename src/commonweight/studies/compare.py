"""Every model on every data set, and all overlaps: two models on shared data, or two tasks in one network."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight import __version__
from commonweight.data.table import Table, open_table, table_name
from commonweight.errors import IntegrityError, UsageError
from commonweight.footprint.collector import choose_parameters
from commonweight.footprint.footprint import Footprint
from commonweight.nn.source import FUNCTION, LoadedModel, LoadOptions, load_model, short_name
from commonweight.overlaps.compatible import common_parameters
from commonweight.overlaps.table import OverlapTable, overlap
from commonweight.studies.measure import MeasureOptions, Note, measure, silent
from commonweight.studies.run_folder import RunFolder, check_place, open_run, same_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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

    The run folder holds ``run.json``, ``footprints/<model>--<data>/``, ``overlap.json`` and ``overlap.md``. Calling
    again with the same arguments measures only what is missing.

    Args:
        models: As for :func:`commonweight.nn.source.load_model`.
        data: As for :func:`commonweight.data.table.open_table`, each with ``NAME=`` before it if wanted.
        run: The run folder.
        options: How.
        fresh: Throw away a run that is there.
        progress: Show progress bars on stderr.
        note: Takes one sentence at a time that the user should hear.

    Returns:
        The table of all ``model/data`` pairs.

    Raises:
        UsageError: If models or data cannot be read, fewer than two footprints are asked for, or the folder holds
            something else.
        NotComparableError: If the models do not have the same parameters; found before anything is measured.
        IntegrityError: If a footprint of the run is damaged or not what the run says.
    """
    options = options or CompareOptions()
    folder = Path(run)
    check_place(folder)
    if len(models) * len(data) < 2:
        raise UsageError(
            f"{len(models)} model on {len(data)} data set gives one footprint; give a second model or --data"
        )
    named_models = dict(zip(model_names(models), zip(models, _checkpoints(models, options), strict=True), strict=True))
    tables = {
        name: open_table(spec, split=options.split, examples=options.examples, seed=options.data_seed)
        for name, spec in named_data(data)
    }
    identities = _inspect(named_models, options, note)
    asked = {
        "settings": options.measure.deciding() | {"dtype": options.load.dtype},
        "models": identities,
        "data": {name: table.identity for name, table in tables.items()},
    }
    opened = open_run(folder, asked, fresh=fresh)
    opened.update(versions=_versions())
    return _measure_all(opened, named_models, tables, options, progress=progress, note=note)


def model_names(specs: Sequence[str]) -> list[str]:
    """Give every model a short name; equal ones get parts of their path until they differ.

    Args:
        specs: Models as the user gave them.

    Returns:
        One name each, without a slash.

    Raises:
        UsageError: If a model is given twice.

    Example:
        >>> model_names(["org/bert@v1", "org/bert@v2", "runs/food/final", "runs/films/final"])
        ['bert@v1', 'bert@v2', 'food-final', 'films-final']
    """
    twice = [spec for spec, count in Counter(specs).items() if count > 1]
    if twice:
        raise UsageError(f"the model {twice[0]!r} is given twice; give each once")
    names = [short_name(spec) for spec in specs]
    for parts in range(1, max(len(_parts(spec)) for spec in specs) + 1):
        clashes = {name for name, count in Counter(names).items() if count > 1}
        names = [
            "-".join(_parts(spec)[-parts:]) if name in clashes else name
            for name, spec in zip(names, specs, strict=True)
        ]
        if len(set(names)) == len(names):
            break
    if len(set(names)) < len(names):
        names = [f"{name}-{i + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    return [name.replace("/", "-") for name in names]


def named_data(specs: Sequence[str]) -> list[tuple[str, str]]:
    """Split ``NAME=DATA`` and name the rest after their last part.

    Args:
        specs: Data as the user gave them.

    Returns:
        Name and data, in order.

    Raises:
        UsageError: If two have the same name.

    Example:
        >>> named_data(["dev.tsv", "films=runs/a.jsonl"])
        [('dev', 'dev.tsv'), ('films', 'runs/a.jsonl')]
    """
    found = []
    for spec in specs:
        name, sign, rest = spec.partition("=")
        if sign and "/" not in name and not Path(spec).exists():
            found.append((name, rest))
        else:
            found.append((table_name(spec), spec))
    for name, count in Counter(name for name, _ in found).items():
        if count > 1 or not name:
            raise UsageError(f"{count} data sets are called {name!r}; name them apart with --data NAME=DATA")
    return found


def _parts(spec: str) -> list[str]:
    # The more of the last parts are kept, the more a name differs from others.
    if Path(spec).expanduser().exists():
        return [part for part in Path(spec).expanduser().resolve().parts if part != "/"]
    return spec.replace(":", "/").split("/")


def _checkpoints(models: Sequence[str], options: CompareOptions) -> list[str | None]:
    functions = [spec for spec in models if not Path(spec).expanduser().exists() and FUNCTION.fullmatch(spec)]
    if options.checkpoints and len(options.checkpoints) != len(functions):
        raise UsageError(
            f"{len(options.checkpoints)} --checkpoint for {len(functions)} module:function models; give one for each, "
            "in order"
        )
    waiting = iter(options.checkpoints)
    return [next(waiting, None) if spec in functions else None for spec in models]


def _load(spec: str, checkpoint: str | None, options: CompareOptions) -> LoadedModel:
    return load_model(spec, replace(options.load, checkpoint=checkpoint))


def _inspect(
    models: Mapping[str, tuple[str, str | None]], options: CompareOptions, note: Note
) -> dict[str, dict[str, Any]]:
    # Before the heavy work: all must load, and all must be comparable.
    identities = {}
    shapes: dict[str, Footprint] = {}
    for name, (spec, checkpoint) in models.items():
        note(f"reading {spec}")
        loaded = _load(spec, checkpoint, options)
        for sentence in loaded.notes:
            note(sentence)
        identities[name] = loaded.identity
        chosen = choose_parameters(loaded.model, options.measure.include or None, options.measure.exclude or None)
        empty = {parameter: torch.empty(tensor.shape, device="meta") for parameter, tensor in chosen.items()}
        shapes[name] = Footprint("fisher", empty, count=1)
        if len(shapes) > 1:
            common_parameters(shapes, common_only=options.common_only)
    return identities


def _measure_all(
    run: RunFolder,
    models: Mapping[str, tuple[str, str | None]],
    tables: Mapping[str, Table],
    options: CompareOptions,
    *,
    progress: bool,
    note: Note,
) -> Comparison:
    footprints: dict[str, Footprint] = {}
    measured, skipped = [], []
    for model, (spec, checkpoint) in models.items():
        loaded = None
        for data, table in tables.items():
            name = f"{model}/{data}"
            place = run.footprint_folder(name)
            if place.exists():
                footprints[name] = _finished(place, run.record["models"][model], run.record["data"][data])
                skipped.append(name)
                note(f"{name}: measured before")
                continue
            loaded = loaded or _load(spec, checkpoint, options)
            note(f"{name}: measuring {len(table)} examples")
            footprints[name] = measure(loaded, table, options.measure, folder=place, progress=progress, note=note)
            measured.append(name)
    overlaps = overlap(footprints, common_only=options.common_only)
    run.write("overlap.json", overlaps.to_json())
    run.write("overlap.md", overlaps.to_markdown())
    run.update(
        status="complete",
        footprints={name: str(run.footprint_folder(name).relative_to(run.path)) for name in footprints},
    )
    return Comparison(run.path, overlaps, tuple(measured), tuple(skipped))


def _finished(place: Path, model: Mapping[str, Any], data: Mapping[str, Any]) -> Footprint:
    footprint = Footprint.load(place)
    found = dict(footprint.metadata.get("data", {}))
    found.pop("columns", None)
    if not same_identity(footprint.metadata.get("model"), model) or not same_identity(found, data):
        raise IntegrityError(f"{place} was measured on another model or other data than its run says; pass --fresh")
    return footprint


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "datasets")
    return {"python": platform.python_version(), "commonweight": __version__} | {name: version(name) for name in names}
