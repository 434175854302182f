"""``commonweight show``: what a finished run found, again."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import by_option, result_options, write, write_run


@click.command("show", cls=Command, epilog=ending("commonweight show runs/both --by 3 --verbose"))
@click.argument("folder", metavar="RUN")
@by_option
@result_options
def command(folder: str, by: str | int, form: str, verbose: bool) -> None:
    """Show what a finished RUN found.

    RUN is of compare, localise, merge-check, shortcuts or continual. Nothing is measured, and no model or data is read.
    --by is for runs of compare.
    """
    run = Path(folder)
    if by == "layer":
        write_run(run, form, verbose=verbose)
        return
    from commonweight.studies.compare.compare import read_comparison_result

    write(read_comparison_result(run, by), form, verbose=verbose, run=folder)
