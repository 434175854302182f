"""A comparison before anything is measured: everything that can be checked, and what it will take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.data.table import open_table
from commonweight.footprints.footprint import Footprint
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.measure import MeasureOptions
from commonweight.studies.compare.names import keep_names, name_models, named_data
from commonweight.studies.compare.preflight import inspect_models
from commonweight.studies.run.folder import (
    FOOTPRINTS,
    check_outside,
    check_place,
    finished_names,
)
from commonweight.studies.run.outlook import Outlook
from commonweight.studies.run.output import check_writable
from commonweight.studies.run.record import read_record, same_identity
from commonweight.studies.run.rows import fold_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.table import Table
    from commonweight.studies.compare.names import Model
    from commonweight.studies.compare.preflight import Inspected


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

    def outlook(self, *, fresh: bool = False) -> Outlook:
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
        return Outlook(self.folder, missing, there, model=self.inspected.largest, thrown_away=former)


def check_comparison(
    models: Sequence[str], data: Sequence[str], folder: Path, options: CompareOptions, *, fresh: bool, note: Note
) -> Checked:
    """Check everything that can be checked without measuring, for every model and every data set."""
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
    asked = options.measure.folds
    if asked is None and former and finished_names(folder):
        asked = former["settings"].get("folds")  # what is there already was measured so
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
        raise IntegrityError(f"{place} was measured on another model or other data than its run says; pass --fresh")
    return footprint
