"""``commonweight compare``: every model on every data set, and all overlaps."""

from __future__ import annotations

from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, read_options
from commonweight.cli.tables import table_options, write
from commonweight.studies.compare.options import CompareOptions


@click.command(
    "compare",
    cls=Command,
    epilog=ending("commonweight compare runs/films runs/food --data films=a.tsv --data food=b.tsv -o runs/both"),
)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL ...")
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="[NAME=]DATA",
    help="A data set, with its name in the table; give it several times for several data sets.",
)
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command resumes there.")
@click.option("--fresh", is_flag=True, help="Delete the footprints and tables of an earlier run in this folder first.")
@dry_run_option
@table_options
@options_of(CompareOptions)
def command(
    models: tuple[str, ...],
    data: tuple[str, ...],
    output: str,
    fresh: bool,
    dry_run: bool,
    by: str | int,
    form: str,
    **given: Any,
) -> None:
    """Measure every MODEL on every data set and compare all footprints.

    NAME= gives a model or data set its name in the table. If a file has that whole word as its name, equals sign
    included, the file is meant. One model and two data sets compare two tasks in one network. RUN holds run.json, the
    footprints, overlap.json and overlap.md. The same command again measures only what is missing. A different question
    in the same folder is refused.
    """
    from commonweight.report.terminal import show
    from commonweight.report.verdicts import verdict_blocks
    from commonweight.studies.compare.compare import compare, compare_outlook

    options = read_options(CompareOptions, given)
    if dry_run:
        with streams.only_results():
            expected = compare_outlook(models, data, output, options, fresh=fresh, note=streams.tell)
        show(expected.blocks())
        return
    with streams.only_results():
        found = compare(models, data, output, options, fresh=fresh, progress=streams.bars(), note=streams.tell)
    streams.tell(f"{len(found.measured)} footprints measured, {len(found.skipped)} were there; the run is in {output}")
    write(found.table, by, form, verdict_blocks(found.table, found.contrasts, by))
