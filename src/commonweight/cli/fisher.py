"""``commonweight fisher``: one model on one data set, one footprint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.folders import checked_output, replacing
from commonweight.cli import streams
from commonweight.cli.options import Command, data_option, dry_run_option, ending, options_of, read_options
from commonweight.cli.results import ROWS, result_options, write
from commonweight.models.options import LoadOptions
from commonweight.studies.compare.options import CompareOptions, MeasureOptions

if TYPE_CHECKING:
    from commonweight.base.text import Block


@click.command(
    "fisher", cls=Command, epilog=ending("commonweight fisher runs/films --data dev.tsv --folds 8 -o footprints/films")
)
@click.argument("model")
@data_option
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder for the footprint.")
@click.option("--overwrite", is_flag=True, help="Replace an existing footprint.")
@dry_run_option
@click.option(
    "--until-noise-ceiling",
    metavar="C",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Add rows, in the order of --data-seed, until two steps in a row have a split-half noise ceiling of C (such "
    "as 0.95) and an effective sample size of at least 20, or the data end. --examples is then the largest number of "
    "rows. Stopping in this way makes the noise ceiling too high: by much if a few examples carry most of the trace.",
)
@options_of(CompareOptions, only=ROWS)
@options_of(MeasureOptions)
@options_of(LoadOptions)
@result_options
def command(
    model: str,
    data: str,
    output: str,
    overwrite: bool,
    dry_run: bool,
    until_noise_ceiling: float | None,
    form: str,
    verbose: bool,
    **given: Any,
) -> None:
    """Measure where MODEL keeps what it knows about some data.

    MODEL is a Hugging Face id (org/name@revision), a checkpoint or PEFT adapter folder, or module:function returning a
    torch module. DATA is a TSV, CSV, JSONL or Parquet file, a save_to_disk folder, or an id (org/name:config@revision).
    """
    from commonweight.footprints.files import FOOTPRINT_FOLDER

    folder = checked_output(Path(output), FOOTPRINT_FOLDER, overwrite=overwrite)
    from commonweight.base.text import silent
    from commonweight.data.table import open_table
    from commonweight.footprints.footprint import Footprint
    from commonweight.models.load import load_model
    from commonweight.report.footprint import result
    from commonweight.report.terminal import show
    from commonweight.studies.compare.measure import measure, measure_outlook, probe
    from commonweight.studies.compare.prepare import check_columns
    from commonweight.studies.compare.until_noise_ceiling import measure_until, planned, until_outlook

    options = read_options(MeasureOptions, given)
    table = open_table(data, split=given["split"], examples=given["examples"], seed=given["data_seed"])
    check_columns(table, options.columns)
    with streams.working():
        loaded = load_model(model, read_options(LoadOptions, given))
        for sentence in loaded.notes:
            streams.note(sentence)
    curve: list[Block] = []
    with streams.working():
        note = streams.note if dry_run else silent
        expected = (
            measure_outlook(loaded, table, options, folder, note)
            if until_noise_ceiling is None
            else until_outlook(loaded, table, options, until_noise_ceiling, folder=folder, note=note)
        )
    if dry_run:
        with streams.working():
            expected = expected.with_time(len(table) * probe(loaded, table, options), "measure")
        if until_noise_ceiling is not None:
            curve = [planned(table, options, until_noise_ceiling)]
        show([*curve, *expected.blocks()])
        return
    streams.note(
        f"measuring {'up to ' if until_noise_ceiling else ''}{len(table)} rows of {table.name} on "
        f"{loaded.identity['class']} in {loaded.identity['dtype']}"
    )
    with streams.working(), replacing(folder, FOOTPRINT_FOLDER, overwrite=overwrite) as place:
        streams.note(expected.sentence())
        if until_noise_ceiling is None:
            measure(loaded, table, options, folder=place, note=streams.note)
        else:
            _, found = measure_until(loaded, table, options, until_noise_ceiling, folder=place, note=streams.note)
            curve = found.blocks()
    write(result(Footprint.load(folder), output, curve), form, verbose=verbose, beside=curve)
