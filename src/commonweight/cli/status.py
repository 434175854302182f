"""``commonweight status``: how far a run is."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import page_of


@click.command("status", cls=Command, epilog=ending("commonweight status runs/both"))
@click.argument("folder", metavar="RUN")
def command(folder: str) -> None:
    """Say how far a RUN is, and how much time is left.

    RUN is of compare, shortcuts, continual or demo. Items are done, at work or missing. It only looks at the files of
    the run, so it can be asked while others work there, on any machine that sees them.
    """
    from commonweight.report.terminal import show
    from commonweight.studies.run.status import status_blocks

    run = Path(folder)
    show(status_blocks(run, page_of(run).items(run)))
