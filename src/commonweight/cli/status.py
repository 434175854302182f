"""``commonweight status``: how far a run is."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import page_of, result_options, write


@click.command("status", cls=Command, epilog=ending("commonweight status runs/both"))
@click.argument("folder", metavar="RUN")
@result_options
def command(folder: str, form: str, *, verbose: bool) -> None:
    """Say how far a RUN is, and how much time is left.

    RUN is of compare, shortcuts, continual or demo. Items are done, at work or missing. It only looks at the files of
    the run, so it can be asked while others work there, on any machine that sees them.
    """
    from commonweight.studies.run.status import status_of

    run = Path(folder)
    write(status_of(run, page_of(run).items(run)), form, verbose=verbose)
