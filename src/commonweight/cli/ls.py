"""``commonweight ls``: the runs in a folder, and what each found."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import result_options, write


@click.command("ls", cls=Command, epilog=ending("commonweight ls runs"))
@click.argument("folder", metavar="[FOLDER]", default=".")
@result_options
def command(folder: str, form: str, *, verbose: bool) -> None:
    """List the runs in FOLDER, each with its answer.

    Runs are looked for up to three levels deep.
    """
    from commonweight.studies.run.runs import listed

    write(listed(Path(folder)), form, verbose=verbose)
