"""``commonweight continual``: many tasks in one frozen network, one mask per task, alone or helped by similar tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commonweight.cli import streams
from commonweight.cli.options import Command, dry_run_option, ending, options_of, read_options, scheduler_option
from commonweight.cli.results import report_option, result_options, write_report, write_run
from commonweight.studies.continual.plan import Plan

EXAMPLE = "commonweight continual run --data digits --scenario rotated --approach classic transfer -o runs/rotated"


@click.group("continual", epilog=ending(EXAMPLE))
def command() -> None:
    """Study many tasks in one network, with a mask for each.

    Do tasks share weights, are they alike, and does a similar task help the next one? A network with frozen weights
    learns one mask per task. Masks are compared with each other, batch-norm statistics say which tasks are alike, and
    in the transfer approach a similar prior task influences the mask of the next.
    """


@command.command("run", cls=Command, epilog=ending(EXAMPLE))
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder; the same command resumes there.")
@options_of(Plan)
@scheduler_option
@dry_run_option
@result_options
@report_option
def run(
    output: str, scheduler: str | None, dry_run: bool, form: str, verbose: bool, report: bool, **given: Any
) -> None:
    """Train, compare, infer; write masks, statistics, tables and figures, and show what was found.

    The similarities every_layer (the default) and first_layer need a classic network that has learned the task
    before. That network is trained, too, and its steps are counted.
    """
    plan = read_options(Plan, given)
    from commonweight.report.terminal import show
    from commonweight.studies.continual.page import write_page
    from commonweight.studies.continual.run import run_and_write, study_outlook

    if dry_run:
        with streams.working():
            blocks = study_outlook(Path(output), plan).blocks()
        show(blocks)
        return
    with streams.working():
        run_and_write(Path(output), plan, scheduler=scheduler, note=streams.note)
    if report:
        write_report(Path(output), write_page)
    write_run(Path(output), form, verbose=verbose)
