"""Before the heavy work: every model loads, all are comparable, and every model can read every data set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from commonweight.errors import UsageError
from commonweight.footprint.collector import choose_parameters
from commonweight.footprint.folds import fold_of
from commonweight.footprint.footprint import Footprint
from commonweight.nn.source import LoadedModel, LoadOptions, load_model
from commonweight.overlaps.compatible import common_parameters
from commonweight.studies.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.data.table import Table
    from commonweight.studies.measure import MeasureOptions, Note
    from commonweight.studies.names import Model


def load(model: Model, options: LoadOptions) -> LoadedModel:
    """Load one model of a comparison, with its own checkpoint.

    Args:
        model: Which.
        options: How all are read.

    Returns:
        The model.
    """
    return load_model(model.spec, replace(options, checkpoint=model.checkpoint))


def inspect_models(
    models: Sequence[Model],
    tables: Mapping[str, Table],
    reading: LoadOptions,
    measuring: MeasureOptions,
    *,
    common_only: bool,
    note: Note,
) -> list[dict[str, Any]]:
    """Load every model once and check all that needs no measurement.

    Args:
        models: The models.
        tables: The data sets by name.
        reading: How models are read.
        measuring: How Fishers are measured.
        common_only: Whether parameters that differ are left out.
        note: Takes one sentence at a time that the user should hear.

    Returns:
        The identity of each model.

    Raises:
        UsageError: If a model cannot be read, or a data set does not serve it.
        NotComparableError: If the models do not have the same parameters.
    """
    for table in tables.values():
        _check_folds(table, measuring.folds)
    identities = []
    shapes: dict[str, Footprint] = {}
    for model in models:
        note(f"reading {model.spec}")
        loaded = load(model, reading)
        for sentence in loaded.notes:
            note(sentence)
        identities.append(loaded.identity)
        chosen = choose_parameters(loaded.model, measuring.include or None, measuring.exclude or None)
        empty = {parameter: torch.empty(tensor.shape, device="meta") for parameter, tensor in chosen.items()}
        shapes[model.name] = Footprint("fisher", empty, count=1)
        if len(shapes) > 1:
            common_parameters(shapes, common_only=common_only)
        for table in tables.values():
            prepare(loaded, table, measuring.columns)
    return identities


def _check_folds(table: Table, folds: int) -> None:
    empty = set(range(folds)) - {fold_of(row, folds) for row in table.source_rows}
    if empty:
        raise UsageError(
            f"fold {min(empty)} of {folds} holds no example of {table.name}, which has {len(table)} rows; use fewer "
            "--folds or more examples"
        )
