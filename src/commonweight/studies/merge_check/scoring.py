"""Every row of every data set, scored by merges that hold the head of its own parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commonweight.base.progress import track
from commonweight.interventions.measure import RowScores, row_scores
from commonweight.studies.compare.measure import with_less_memory
from commonweight.studies.compare.prepare import prepare
from commonweight.studies.localise.cells import Scored, is_scored
from commonweight.studies.localise.halves import units_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from commonweight.base.text import Note
    from commonweight.data.table import Table
    from commonweight.studies.merge_check.parents import Parents, Weights
    from commonweight.studies.merge_check.plan import Members, MergeCheckOptions


def score(
    place: Path,
    parents: Parents,
    members: Members,
    networks: Mapping[str, Callable[[], Weights]],
    tables: Mapping[str, Table],
    options: MergeCheckOptions,
    label: str,
    note: Note,
) -> Scored:
    """Score networks on the data sets of some models, unless that was done before."""
    if is_scored(place):
        return Scored.load(place)
    prepared = {
        data: prepare(parents.loaded[data], tables[data], options.measure.columns, note=note) for data in members
    }
    found: dict[str, dict[str, RowScores]] = {data: {} for data in members}
    for key in track([*networks], label, unit="network"):
        weights = networks[key]()
        for data, rows in prepared.items():
            with parents.holding(data, weights) as loaded:
                found[data][key] = with_less_memory(
                    loaded,
                    options.measure,
                    len(tables[data]),
                    note,
                    lambda size, rows=rows, loaded=loaded: row_scores(  # type: ignore[misc]
                        loaded.model, rows.batches.with_batch_size(size), options.measure.loss or loaded.task
                    ),
                )
    units = {
        data: units_in_order(tables[data], next(iter(each.values())).source_rows)
        for data, each in found.items()
        if each
    }
    scored = Scored(units, found, {})
    scored.save(place)
    return scored
