"""``commonweight localise``: does a footprint hold what it names? Grafts, resets, and what they do to every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, read_options
from commonweight.cli.results import report_option, result_options, write_report, write_run
from commonweight.studies.localise.plan import LocaliseOptions


@click.command(
    "localise",
    cls=Command,
    epilog=ending(
        "commonweight localise A=runs/films B=runs/food --initialisation org/encoder --data A=a.tsv --data B=b.tsv "
        "-o runs/localised"
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL ...")
@click.option("--initialisation", required=True, metavar="S", help="The checkpoint that the models were trained from.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="NAME=DATA",
    help="A data set; one named after a model belongs to it, others are controls.",
)
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command resumes there.")
@dry_run_option
@result_options
@report_option
@options_of(LocaliseOptions)
def command(
    models: tuple[str, ...],
    initialisation: str,
    data: tuple[str, ...],
    output: str,
    dry_run: bool,
    form: str,
    verbose: bool,
    report: bool,
    **given: Any,
) -> None:
    """Test whether a map's weights hold what MODELs learned.

    A map, such as a Fisher, chooses a share of the weights on one half of the rows. On the other half every row is
    scored after these weights, and no others, are put onto the initialisation (graft), or back to it (reset). Random
    sets, and sets matched by how far their weights moved, stand beside each. The models are never trained; their files
    stay as they are. RUN holds run.json, the footprints, the sets, the scores of every row, and the result
    (report.html, study.md, study.json, study.csv).
    """
    from commonweight.report.terminal import show
    from commonweight.studies.localise.outlook import localise_outlook
    from commonweight.studies.localise.page import write_page
    from commonweight.studies.localise.run import localise_specs

    options = read_options(LocaliseOptions, given)
    if dry_run:
        with streams.working():
            expected = localise_outlook(models, data, initialisation, Path(output), options, streams.note)
        show(expected.blocks())
        return
    with streams.working():
        localise_specs(models, data, initialisation, Path(output), options, note=streams.note)
    if report:
        write_report(Path(output), write_page)
    write_run(Path(output), form, verbose=verbose)
