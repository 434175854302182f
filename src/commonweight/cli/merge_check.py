"""``commonweight merge-check``: will these models merge? Trial merges, and what they do to every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, read_options
from commonweight.cli.results import report_option, result_options, write_report, write_run
from commonweight.studies.merge_check.plan import MergeCheckOptions


@click.command(
    "merge-check",
    cls=Command,
    epilog=ending(
        "commonweight merge-check A=runs/films B=runs/food --initialisation org/encoder --data A=a.tsv --data B=b.tsv "
        "-o runs/merged"
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL ...")
@click.option("--initialisation", required=True, metavar="S", help="The checkpoint that the models were trained from.")
@click.option(
    "--data", required=True, multiple=True, metavar="NAME=DATA", help="The data set of a model, by the model's name."
)
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command resumes there.")
@click.option("--write", metavar="FOLDER", help="Write the best merge of all models there, as commonweight fuse does.")
@dry_run_option
@result_options
@report_option
@options_of(MergeCheckOptions)
def command(
    models: tuple[str, ...],
    initialisation: str,
    data: tuple[str, ...],
    output: str,
    write: str | None,
    dry_run: bool,
    form: str,
    verbose: bool,
    report: bool,
    **given: Any,
) -> None:
    """Try merges in memory; rank them by what they lose.

    Every pair, and all together, are merged as a plain average, by task arithmetic, and weighted by Fishers. A merge is
    scored on the data set of each of its models, with the head of this model, or with the merged head if you ask for
    --merge-heads. One half of the rows chooses the best merge and the layers that are tested; every number is from the
    other half. The models are never trained; their files stay as they are. RUN holds run.json, the Fishers, the scores
    of every row, recipe.json (and mergekit.yaml, if mergekit can make the merge), and the result (report.html,
    study.md, study.json, study.csv).
    """
    from commonweight.report.terminal import show
    from commonweight.studies.merge_check.outlook import merge_check_outlook
    from commonweight.studies.merge_check.page import write_page
    from commonweight.studies.merge_check.run import merge_check_specs

    asked = models, data, initialisation, Path(output), read_options(MergeCheckOptions, given)
    fused = None if write is None else Path(write)
    if dry_run:
        with streams.working():
            expected = merge_check_outlook(*asked, write=fused, note=streams.note)
        show(expected.blocks())
        return
    with streams.working():
        merge_check_specs(*asked, write=fused, note=streams.note)
    if report:
        write_report(Path(output), write_page)
    write_run(Path(output), form, verbose=verbose)
