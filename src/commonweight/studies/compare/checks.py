"""A comparison before anything is measured: everything that can be checked, and what it will take.

Every model loads, all are comparable, and every model can read every data set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import check_writable
from commonweight.data.table import open_table
from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import Needs, needs_of
from commonweight.footprints.footprint import Footprint
from commonweight.fusion.compatible import beware_of_nameless
from commonweight.fusion.modules import config_of
from commonweight.models.load import load_model
from commonweight.overlaps.compatible import common_parameters
from commonweight.studies.compare.folder import FOOTPRINTS, check_outside, finished_names, read_comparison
from commonweight.studies.compare.measure import FOLD_DTYPE, footprint_outlook, model_bytes
from commonweight.studies.compare.names import keep_names, name_models, named_data
from commonweight.studies.compare.prepare import check_columns, prepare
from commonweight.studies.compare.rows import fold_count
from commonweight.studies.run.folder import check_place
from commonweight.studies.run.record import same_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.table import Table
    from commonweight.models.options import LoadedModel, LoadOptions
    from commonweight.studies.compare.names import Model
    from commonweight.studies.compare.options import CompareOptions, MeasureOptions
    from commonweight.studies.run.outlook import Outlook

ROOM = 1 << 30
"""Bytes: models that take no more together stay in memory from the checks until they are measured."""


def source_of(model: Model, options: LoadOptions) -> tuple[str, LoadOptions]:
    """Say what one model of a comparison is loaded from, with its own checkpoint."""
    return model.spec, replace(options, checkpoint=model.checkpoint)


def load(model: Model, options: LoadOptions) -> LoadedModel:
    """Load one model of a comparison."""
    return load_model(*source_of(model, options))


@dataclass(frozen=True)
class Inspected:
    """What is known of the models before anything is measured."""

    identities: tuple[dict[str, Any], ...]
    """One per model, in their order."""

    needs: tuple[Needs, ...]
    """Per model the room that one footprint of it takes."""

    largest: int
    """Bytes of the largest model."""

    loaded: dict[Model, LoadedModel]
    """The models that are still in memory: they need not be loaded again to be measured."""


def inspect_models(
    models: Sequence[Model],
    tables: Mapping[str, Table],
    reading: LoadOptions,
    measuring: MeasureOptions,
    *,
    common_only: bool,
    note: Note,
) -> Inspected:
    """Load every model once, one after the other, and check all that needs no measurement."""
    # The checks need the models themselves: which weights are missing, what a function builds, what a module reads. So
    # models stay in memory as long as they take at most :data:`ROOM` together, and beside these at most one, the last.
    # All others go before the next is loaded.
    identities = []
    needs = []
    sizes = []
    configs = {}
    shapes: dict[str, Footprint] = {}
    kept: dict[Model, LoadedModel] = {}
    for model in models:
        while sum(map(model_bytes, kept.values())) > ROOM:
            del kept[next(reversed(kept))]
        note(f"reading {model.spec}")
        kept[model] = load(model, reading)
        for sentence in kept[model].notes:
            note(sentence)
        configs[model.name] = config_of(kept[model].model) or {}
        identities.append(kept[model].identity)
        shapes[model.name] = _shapes(kept[model], measuring)
        needs.append(needs_of(shapes[model.name].tensors, measuring.folds or 1, FOLD_DTYPE))
        sizes.append(model_bytes(kept[model]))
        if len(shapes) > 1:
            common_parameters(shapes, common_only=common_only)
        for table in tables.values():
            prepare(kept[model], table, measuring.columns)
    for sentence in beware_of_nameless(configs):
        note(sentence)
    return Inspected(tuple(identities), tuple(needs), max(sizes), kept)


def _shapes(loaded: LoadedModel, measuring: MeasureOptions) -> Footprint:
    chosen = choose_parameters(loaded.model, measuring.include or None, measuring.exclude or None)
    empty = {
        parameter: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for parameter, tensor in chosen.items()
    }
    return Footprint("fisher", empty, count=1)


@dataclass(frozen=True)
class Checked:
    """A comparison that may begin."""

    folder: Path
    options: CompareOptions
    """With the number of folds decided."""

    models: Mapping[str, Model]
    """By their names in the table."""

    tables: Mapping[str, Table]
    """The data sets by name."""

    inspected: Inspected
    question: dict[str, Any]
    """What ``run.json`` will say: ``settings``, ``models`` and ``data``."""

    def outlook(self, *, fresh: bool = False) -> Outlook[Needs]:
        """Tell what the footprints that are not there yet will take."""
        missing, there = {}, 0
        for model, needs in zip(self.models, self.inspected.needs, strict=True):
            for data in self.tables:
                place = self.folder / FOOTPRINTS / model / data
                if place.exists() and not fresh:
                    finished(place, self.question["models"][model], self.question["data"][data])
                    there += 1
                else:
                    missing[f"{model}/{data}"] = needs
        shards = (self.folder / FOOTPRINTS).glob("*/*/*.safetensors") if fresh else ()
        former = sum(shard.stat().st_size for shard in shards)
        return footprint_outlook(self.folder, missing, model=self.inspected.largest, there=there, thrown_away=former)


def check_comparison(
    models: Sequence[str], data: Sequence[str], folder: Path, options: CompareOptions, *, fresh: bool, note: Note
) -> Checked:
    """Check everything that can be checked without measuring, for every model and every data set."""
    named, sources = name_models(models, options.checkpoints), named_data(data)
    if len(models) * len(data) < 2:
        raise UsageError(f"{len(models)} model on {len(data)} data set gives one footprint; give another of either")
    check_place(folder)
    check_writable(folder / FOOTPRINTS / "model" / "data")
    longest = (max(names, key=lambda name: len(name.encode())) for names in ([m.name for m in named], dict(sources)))
    check_writable((folder / FOOTPRINTS).joinpath(*longest))  # names may be too long for the file system
    if fresh:
        check_outside(folder, [*(m.spec for m in named), *(s for _, s in sources), *options.checkpoints, Path.cwd()])
    former = {} if fresh else read_comparison(folder).get("asked", {})
    tables = {
        name: open_table(spec, split=options.split, examples=options.examples, seed=options.data_seed)
        for name, spec in sources
    }
    for table in tables.values():
        check_columns(table, options.measure.columns)
    asked = options.measure.folds
    if asked is None and former and finished_names(folder):
        asked = former["settings"]["folds"]  # what is there already was measured so
    folds = fold_count(tables.values(), asked, note)
    options = replace(options, measure=replace(options.measure, folds=folds))
    inspected = inspect_models(named, tables, options.load, options.measure, common_only=options.common_only, note=note)
    names = keep_names(named, inspected.identities, former.get("models", {}))
    question = {
        "settings": options.measure.deciding() | {"dtype": options.load.dtype, "tokenizer": options.load.tokenizer},
        "models": dict(zip(names, inspected.identities, strict=True)),
        "data": {name: table.identity for name, table in tables.items()},
    }
    return Checked(folder, options, dict(zip(names, named, strict=True)), tables, inspected, question)


def finished(place: Path, model: Mapping[str, Any], data: Mapping[str, Any]) -> Footprint:
    """Open a footprint that a run has measured before."""
    footprint = Footprint.load(place)
    found = dict(footprint.metadata.get("data", {}))
    found.pop("columns", None)
    # Beside the identity a footprint records what was measured of the model.
    recorded = {key: value for key, value in dict(footprint.metadata.get("model", {})).items() if key in model}
    if not same_identity(recorded, model) or not same_identity(found, data):
        raise IntegrityError(
            f"{place} was measured on another model or other data than its run says; pass {{fresh}}", fresh=True
        )
    return footprint
