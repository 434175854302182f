"""``commonweight verify``: is every rule exact on this model, and which parameters take the slow route?"""

from __future__ import annotations

from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, data_option, ending, options_of, read_options
from commonweight.cli.results import ROWS, result_options, write
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.options import ColumnOptions, CompareOptions, MeasureOptions

FEW = 4
"""Rows."""


@click.command("verify", cls=Command, epilog=ending("commonweight verify runs/films --data dev.tsv"))
@click.argument("model")
@data_option
@options_of(
    CompareOptions,
    only=ROWS,
    words={"examples": "Take them from N rows only, chosen by --data-seed; default: from all rows."},
)
@options_of(ColumnOptions)
@options_of(LoadOptions)
@options_of(MeasureOptions, only=["loss"])
@result_options
def command(model: str, data: str, form: str, verbose: bool, **given: Any) -> None:
    """Compare every rule with single-example passes on a few rows.

    The rows are the longest texts, or the first rows of numbers. Nothing is measured or written. If a rule disagrees,
    this is no failure: its parameter would be measured one example at a time, exactly.
    """
    from commonweight.data.table import open_table
    from commonweight.diagonal_fisher.measure import verify
    from commonweight.models.load import load_model
    from commonweight.report.footprint import verified
    from commonweight.studies.compare.prepare import check_columns, prepare

    table = open_table(data, split=given["split"], examples=given["examples"], seed=given["data_seed"])
    columns = read_options(ColumnOptions, given)
    check_columns(table, columns)
    with streams.working():
        loaded = load_model(model, read_options(LoadOptions, given))
        for sentence in loaded.notes:
            streams.note(sentence)
        batches = prepare(loaded, table, columns).batches
        batches = batches.with_batch_size(min(FEW, len(table)))
        report = verify(loaded.model, next(iter(batches)), loss=given["loss"] or loaded.task)
    write(verified(report, model, data), form, verbose=verbose)
