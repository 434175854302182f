"""``commonweight report``: the page of a finished run, again."""

from __future__ import annotations

from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import page_of, write_report


@click.command("report", cls=Command, epilog=ending("commonweight report runs/both"))
@click.argument("folder", metavar="RUN")
def command(folder: str) -> None:
    """Write report.html, for any browser, of a finished RUN.

    RUN is of a study or of demo. Nothing is measured, and no model or data is read. The file needs no network
    connection.
    """
    from commonweight.report.html import REPORT

    run = Path(folder)
    write_report(run, page_of(run).write_page)
    click.echo(run / REPORT)
