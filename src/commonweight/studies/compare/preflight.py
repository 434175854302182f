"""Before the heavy work: every model loads, all are comparable, and every model can read every data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from commonweight.diagonal_fisher.collector import choose_parameters
from commonweight.footprints.folds import Needs, needs_of
from commonweight.footprints.footprint import Footprint
from commonweight.fusion.compatible import beware_of_nameless
from commonweight.fusion.modules import config_of
from commonweight.models.load import load_model
from commonweight.overlaps.compatible import common_parameters
from commonweight.studies.compare.measure import FOLD_DTYPE
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.run.outlook import model_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.text import Note
    from commonweight.data.table import Table
    from commonweight.models.options import LoadedModel, LoadOptions
    from commonweight.studies.compare.measure import MeasureOptions
    from commonweight.studies.compare.names import Model

ROOM = 1 << 30
"""Bytes: models that take no more together stay in memory from the checks until they are measured."""


def load(model: Model, options: LoadOptions) -> LoadedModel:
    """Load one model of a comparison, with its own checkpoint."""
    return load_model(model.spec, replace(options, checkpoint=model.checkpoint))


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
