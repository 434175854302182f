"""``commonweight compare``: every model on every data set, and all overlaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, read_options, scheduler_option
from commonweight.cli.results import by_option, report_option, result_options, write, write_report, write_run
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
@click.option(
    "--contrast",
    "contrasts",
    multiple=True,
    metavar="A,B:C,D",
    help="Ask whether A and B share more than C and D: names as MODEL/DATA, or of the model or data set alone.",
)
@scheduler_option
@by_option
@result_options
@report_option
@options_of(CompareOptions)
def command(
    models: tuple[str, ...],
    data: tuple[str, ...],
    output: str,
    fresh: bool,
    dry_run: bool,
    contrasts: tuple[str, ...],
    scheduler: str | None,
    by: str | int,
    form: str,
    verbose: bool,
    report: bool,
    **given: Any,
) -> None:
    """Measure every MODEL on every data set; compare them all.

    NAME= gives a model or data set its name in the table. If a file has that whole word as its name, equals sign
    included, the file is meant. One model and two data sets compare two tasks in one network. With data sets named like
    the models, and one more, the answer says whether the models share more on that one than each on its own. RUN holds
    run.json, the footprints, the table (overlap.json) and the result (report.html, study.md, study.json, study.csv).
    The same command again measures only what is missing. A different question in the same folder is refused.
    """
    from commonweight.report.html import REPORT
    from commonweight.report.terminal import show
    from commonweight.studies.compare.compare import compare_and_write, compare_outlook, read_comparison_result
    from commonweight.studies.compare.page import write_page

    options = read_options(CompareOptions, given)
    if dry_run:
        with streams.working():
            expected = compare_outlook(models, data, output, options, fresh=fresh, note=streams.note)
        show(expected.blocks())
        return
    with streams.working():
        found = compare_and_write(
            *(models, data, output, options),
            contrasts=contrasts,
            fresh=fresh,
            scheduler=scheduler,
            note=streams.note,
        )
    if report and (found.is_new or not (found.folder / REPORT).is_file()):
        write_report(found.folder, write_page)
    streams.note(f"{len(found.measured)} footprints measured, {len(found.skipped)} were there; the run is in {output}")
    if by == "layer":
        write_run(Path(output), form, verbose=verbose)
    else:
        write(read_comparison_result(Path(output), by), form, verbose=verbose, run=output)
