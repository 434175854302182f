"""``commonweight ls``: the runs in a folder, and what each found."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending


@click.command("ls", cls=Command, epilog=ending("commonweight ls runs"))
@click.argument("folder", metavar="[FOLDER]", default=".")
def command(folder: str) -> None:
    """List the runs in FOLDER, each with its answer.

    Runs are looked for up to three levels deep.
    """
    from commonweight.report.terminal import show
    from commonweight.studies.run.runs import runs_grid

    show([runs_grid(Path(folder))])
