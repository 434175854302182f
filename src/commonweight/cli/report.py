"""``commonweight report``: the page of a finished run, again."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from commonweight.cli.options import Command, ending
from commonweight.cli.results import write_report

ROOMS = {"comparison": "compare", "shortcuts": "shortcuts", "continual": "continual", "demo": "demo"}
"""Study -> its room."""


@click.command("report", cls=Command, epilog=ending("commonweight report runs/both"))
@click.argument("folder", metavar="RUN")
def command(folder: str) -> None:
    """Write report.html of the finished RUN of compare, shortcuts, continual or demo: one file for any browser.

    Nothing is measured, and no model or data is read. The file needs no network connection.
    """
    from commonweight.report.html import REPORT
    from commonweight.studies.run.runs import study_of

    run = Path(folder)
    room = ROOMS[study_of(run, ROOMS)]
    write_report(run, importlib.import_module(f"commonweight.studies.{room}.page").write_page)
    click.echo(run / REPORT)
