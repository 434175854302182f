"""An overlap table on stdout, by the rows and in the form that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from commonweight.cli.options import By, Suggesting, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.base.text import Block
    from commonweight.cli.options import Decorator
    from commonweight.overlaps.table.table import OverlapTable

ROWS = ("split", "examples", "data_seed")
"""Which rows of a table are read: fields of ``CompareOptions`` that other commands have options of too."""


def format_option(*forms: str, words: str = "Form of the result.") -> Decorator:
    """Make the option of the form of a result; the first is the usual one."""
    return click.option("--format", "form", type=Suggesting(forms), default=forms[0], show_default=True, help=words)


table_options = together(
    click.option(
        "--by",
        type=By(),
        default="layer",
        show_default=True,
        help="Rows of the table; DEPTH counts module levels.",
    ),
    format_option(
        *("table", "json", "csv", "markdown"),
        words="csv has one row per layer and pair, without totals; json holds every number.",
    ),
)


def write(table: OverlapTable, by: str | int, form: str, beside: Sequence[Block] = ()) -> None:
    """Write a table to stdout."""
    if form == "json":
        click.echo((table.roll_up(by) if isinstance(by, int) else table).to_json(), nl=False)
    elif form == "csv":
        click.echo(to_csv(table, by), nl=False)
    elif form == "markdown":
        click.echo(table.to_markdown(by=by), nl=False)
    else:
        from commonweight.report.terminal import show

        show([*table.blocks(by), *beside])


def to_csv(table: OverlapTable, by: str | int = "layer") -> str:
    """Write one row per layer and pair, without totals, at full precision; undefined is an empty field."""
    from commonweight.overlaps.table.numbers import WHOLE

    if by == "parameter":
        frame = table.to_frame("parameter")
    else:
        frame = (table.roll_up(by) if isinstance(by, int) else table).to_frame().replace({"layer": {"": WHOLE}})
    return str(frame.to_csv(index=False, lineterminator="\n"))
