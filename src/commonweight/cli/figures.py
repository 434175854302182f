"""``commonweight figures``: the figures of a finished run, again, for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from commonweight.base.errors import UsageError
from commonweight.cli import streams
from commonweight.cli.options import Command, Suggesting, ending
from commonweight.cli.results import page_of


@click.command("figures", cls=Command, epilog=ending("commonweight figures runs/both --format pdf -o paper"))
@click.argument("folder", metavar="RUN")
@click.option(
    "--format", "form", type=Suggesting(("pdf", "svg", "png")), help="Form of the files; all three if left out."
)
@click.option("-o", "--output", type=click.Path(), help="Folder they go to; RUN/figures if left out.")
def command(folder: str, form: str | None, output: str | None) -> None:
    """Draw the figures of a finished RUN for a paper.

    RUN is of compare, localise, merge-check, shortcuts, continual or demo. Nothing is measured, and no model or data is
    read. Fonts can be edited, colours are safe for colour-blind readers, and the same run gives the same bytes. For the
    tables: commonweight show RUN --format latex.
    """
    from commonweight.report.files import FORMATS, write_figures
    from commonweight.studies.run.page import FIGURES

    run = Path(folder)
    with streams.working():
        place = Path(output) if output else run / FIGURES
        written = write_figures(page_of(run).figures(run), place, _refuse, (form,) if form else FORMATS)
    for path in written:
        click.echo(path)


def _refuse(why: str) -> NoReturn:
    raise UsageError(why)
