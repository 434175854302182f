"""A result on stdout, in the form that was asked for: the answer on one screen, or everything."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from commonweight.base.text import grids_of, to_latex
from commonweight.cli import streams
from commonweight.cli.options import By, Suggesting, together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from commonweight.base.text import Block
    from commonweight.report.answer import Answer, Result

ROWS = ("split", "examples", "data_seed")
"""Which rows of a table are read: fields of ``CompareOptions`` that other commands have options of too."""


by_option = click.option(
    "--by",
    type=By(),
    default="layer",
    show_default=True,
    help="Rows of the table: layers, parameters, or parts of layers such as heads; DEPTH counts module levels.",
)

result_options = together(
    click.option(
        "--format",
        "form",
        type=Suggesting(("table", "json", "csv", "markdown", "latex")),
        default="table",
        show_default=True,
        help="table is the answer on one screen; json, csv and markdown hold every number; latex is its table.",
    ),
    click.option("--verbose", is_flag=True, help="Show every table below the answer, also in latex."),
)


report_option = click.option(
    "--no-report", "report", is_flag=True, callback=lambda _, __, value: not value, help="Write no report.html."
)


ROOMS = {
    "comparison": "compare",
    "localisation": "localise",
    "merge-check": "merge_check",
    "shortcuts": "shortcuts",
    "continual": "continual",
    "demo": "demo",
}
"""Study -> its room."""


def page_of(run: Path) -> Any:
    """Find the module that makes the page and the figures of a run."""
    from commonweight.studies.run.runs import study_of

    return importlib.import_module(f"commonweight.studies.{ROOMS[study_of(run, ROOMS)]}.page")


def write_report(run: Path, write_page: Callable[[Path], Path]) -> None:
    """Write the page of a finished run, and say where it is."""
    with streams.working():
        place = write_page(run)
    streams.note(f"the report is {place}")


def write(result: Result, form: str, *, verbose: bool, run: str = "", beside: Sequence[Block] = ()) -> None:
    """Write what was found; ``run`` is the folder that the rest lies in, ``beside`` what is shown in any case."""
    if form == "json":
        click.echo(result.json, nl=False)
    elif form == "csv":
        click.echo(result.csv, nl=False)
    elif form == "markdown":
        click.echo(result.to_markdown(), nl=False)
    else:
        _show(result.answer, result.blocks if verbose else [*beside], form, run)


def write_run(run: Path, form: str, *, verbose: bool) -> None:
    """Write what a finished run found, from its files."""
    from commonweight.report.answer import FILES, Answer, load_blocks, read_form

    if form in FILES:
        click.echo(read_form(run, form), nl=False)
    else:
        _show(Answer.load(run), load_blocks(run) if verbose else [], form, str(run))


def _show(answer: Answer, more: list[Block], form: str, run: str) -> None:
    if form == "latex":
        click.echo(to_latex([answer.table, *grids_of(more)]), nl=False)
    else:
        from commonweight.report.terminal import show

        show([*answer.on_screen().blocks(run), *more])
