"""How well models predict the rows of data sets: accuracy, and mean log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from commonweight.base.progress import part
from commonweight.interventions.measure import ModelScore, row_scores
from commonweight.models.load import load_model
from commonweight.studies.compare.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.data.table import Table
    from commonweight.models.options import LoadOptions
    from commonweight.studies.compare.options import ColumnOptions

ROWS = 32
"""Per batch."""


def check_rows(spec: str, tables: Mapping[str, Table], columns: ColumnOptions, load: LoadOptions) -> None:
    """Check that a model can read every data set, before others are made that read the same."""
    loaded = load_model(spec, load)
    for table in tables.values():
        prepare(loaded, table, columns)


def score_models(
    models: Mapping[str, str], tables: Mapping[str, Table], columns: ColumnOptions, load: LoadOptions
) -> list[ModelScore]:
    """Score every model, given by name and place, on every data set; one model is in memory at a time."""
    found = []
    for name, spec in models.items():
        loaded = load_model(spec, load)
        for data, table in tables.items():
            with part(f"scoring {name} on {data}"):
                batches = prepare(loaded, table, columns).batches.with_batch_size(ROWS)
                scores = row_scores(loaded.model, batches, loaded.task)
            accuracy, likelihood = float(np.mean(scores.right)), float(np.mean(scores.log_likelihood))
            found.append(ModelScore(name, data, len(scores.source_rows), accuracy, likelihood))
        del loaded
    return found
