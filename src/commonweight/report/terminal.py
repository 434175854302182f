"""Paragraphs and grids on a terminal, drawn with rich; plain aligned text everywhere else.

Colour never carries meaning.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from commonweight.base.text import Grid, holds_words, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.base.text import Block

WIDTH = 80
WIDEST = 10_000
"""Room to measure in, so that a table's own width is found."""


def show(blocks: Sequence[Block], stream: TextIO | None = None) -> None:
    """Write paragraphs and grids."""
    stream = stream or sys.stdout
    if not stream.isatty():
        stream.write(to_plain(blocks))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    for block in blocks:
        if not isinstance(block, Grid):
            console.print(Text(fill(block, min(WIDTH, console.width))), soft_wrap=True)
        else:
            table = Table(box=box.SIMPLE_HEAD, show_header=any(block.header))
            for i, head in enumerate(block.header):
                table.add_column(Text(head), justify="left" if holds_words(block, i) else "right", no_wrap=True)
            for row in block.rows:
                table.add_row(*map(Text, row))
            if block.totals:
                table.add_section()
            for row in block.totals:
                table.add_row(*map(Text, row))
            if console.measure(table, options=console.options.update(width=WIDEST)).maximum <= console.width:
                console.print(Text(fill(block.title, console.width), style="bold"), soft_wrap=True)
                console.print(table)
            else:  # rich would drop columns; some columns at a time, and plain lines that wrap, lose nothing
                console.print(Text(to_plain(split_columns(block, console.width)).rstrip()), soft_wrap=True)
        console.print()


def to_plain(blocks: Sequence[Block]) -> str:
    """Write plain text: names and words on the left, numbers aligned on the right, totals under a rule."""
    return "\n\n".join(fill(b) if isinstance(b, str) else _grid(b) for b in blocks) + "\n"


def fill(paragraph: str, width: int = WIDTH) -> str:
    """Break a paragraph into lines between words, never inside one: a path stays whole."""
    return textwrap.fill(printable(paragraph), width, break_long_words=False, break_on_hyphens=False)


def split_columns(grid: Grid, width: int) -> list[Grid]:
    """Split a grid that is too wide into several, each with the first column; only the first keeps the title."""
    widths = [max(len(row[i]) for row in (grid.header, *grid.rows, *grid.totals)) for i in range(len(grid.header))]
    parts: list[list[int]] = []
    room = 0
    for i in range(1, len(widths)):
        if not parts or widths[i] + 2 > room:
            parts.append([0])
            room = width - widths[0]
        parts[-1].append(i)
        room -= widths[i] + 2

    def chosen(row: tuple[str, ...], part: list[int]) -> tuple[str, ...]:
        return tuple(row[i] for i in part)

    return [
        replace(
            grid,
            title="" if number else grid.title,
            header=chosen(grid.header, part),
            rows=tuple(chosen(row, part) for row in grid.rows),
            totals=tuple(chosen(row, part) for row in grid.totals),
        )
        for number, part in enumerate(parts)
    ]


def _grid(grid: Grid) -> str:
    every = [grid.header, *grid.rows, *grid.totals]
    widths = [max(len(row[i]) for row in every) for i in range(len(grid.header))]
    rule = "  ".join("-" * width for width in widths)

    words = [holds_words(grid, column) for column in range(len(widths))]

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row, widths, words, strict=True)
        return "  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in cells).rstrip()

    head = [line(grid.header), rule] if any(grid.header) else []
    lines = [*([grid.title] if grid.title else []), *head, *map(line, grid.rows)]
    if grid.totals:
        lines += [rule, *map(line, grid.totals)]
    return "\n".join(lines)
