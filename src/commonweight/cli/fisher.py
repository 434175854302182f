"""``commonweight fisher``: one model on one data set, one footprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.cli import settings, streams
from commonweight.cli.options import Command, checkpoint_option, ending, measure_options, model_options, row_options


@click.command(
    "fisher", cls=Command, epilog=ending("commonweight fisher runs/films --data dev.tsv --folds 8 -o footprints/films")
)
@click.argument("model")
@click.option(
    "--data", required=True, metavar="DATA", help="A file, a save_to_disk folder, or a Hugging Face data set."
)
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Where the footprint goes.")
@click.option("--overwrite", is_flag=True, help="Replace a footprint that is there.")
@row_options()
@measure_options
@checkpoint_option
@model_options
def command(model: str, data: str, output: str, overwrite: bool, **given: Any) -> None:
    """Measure where MODEL keeps what it knows about some data.

    MODEL is a Hugging Face id (org/name@revision), a checkpoint or PEFT adapter folder, or module:function returning a
    torch module. DATA is a TSV, CSV, JSONL or Parquet file, a save_to_disk folder, or an id (org/name:config@revision).
    """
    from commonweight.studies.output import checked_output, replacing

    folder = checked_output(Path(output), overwrite=overwrite)
    from commonweight.data.table import open_table
    from commonweight.footprint.footprint import Footprint
    from commonweight.nn.source import load_model
    from commonweight.studies.measure import measure
    from commonweight.view.footprint import summary
    from commonweight.view.terminal import show

    options = settings.measure_options(given)
    table = open_table(data, split=given["split"], examples=given["examples"], seed=given["data_seed"])
    with streams.only_results():
        loaded = load_model(model, settings.load_options(given))
        for sentence in loaded.notes:
            settings.note(sentence)
        settings.note(
            f"measuring {len(table)} rows of {table.name} on {loaded.identity['class']} in {loaded.identity['dtype']}"
        )
        with replacing(folder, overwrite=overwrite) as place:
            measure(loaded, table, options, folder=place, progress=True, note=settings.note)
    show(summary(Footprint.load(folder), output))
