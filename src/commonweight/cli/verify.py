"""``commonweight verify``: is every rule exact on this model, and which parameters take the slow route?"""

from __future__ import annotations

from typing import Any

import click

from commonweight.cli import settings, streams
from commonweight.cli.options import Command, Suggesting, checkpoint_option, ending, model_options, row_options

ROWS = 4


@click.command("verify", cls=Command, epilog=ending("commonweight verify runs/films --data dev.tsv"))
@click.argument("model")
@click.option(
    "--data", required=True, metavar="DATA", help="A file, a save_to_disk folder, or a Hugging Face data set."
)
@row_options(examples="Take the few from N rows only, chosen by --data-seed; default from all.")
@checkpoint_option
@model_options
@click.option(
    "--loss", type=Suggesting(["classification", "multilabel", "regression"]), help="Likelihood of a plain module."
)
@click.option(
    "--format",
    "form",
    type=Suggesting(["table", "markdown"]),
    default="table",
    show_default=True,
    help="Form of the result.",
)
def command(model: str, data: str, form: str, **given: Any) -> None:
    """Compare every rule with single-example passes on a few rows.

    The few are the longest texts, or the first rows of numbers. Nothing is measured or written. A parameter whose rule
    disagrees is no failure: it would be measured one example at a time, exactly.
    """
    from commonweight.data.table import open_table
    from commonweight.diagonal_fisher.measure import verify
    from commonweight.models.load import load_model
    from commonweight.report.footprint import verification
    from commonweight.report.terminal import show
    from commonweight.studies.compare.prepare import ColumnOptions, prepare

    table = open_table(data, split=given["split"], examples=given["examples"], seed=given["data_seed"])
    columns = ColumnOptions(given["text_column"], given["label_column"], given["input_column"], given["max_length"])
    with streams.only_results():
        loaded = load_model(model, settings.load_options(given))
        for sentence in loaded.notes:
            settings.note(sentence)
        batches = prepare(loaded, table, columns).batches.with_batch_size(min(ROWS, len(table)))
        report = verify(loaded.model, next(iter(batches)), loss=given["loss"] or loaded.task)
    if form == "markdown":
        click.echo(report.to_markdown(), nl=False)
    else:
        show(verification(report))
