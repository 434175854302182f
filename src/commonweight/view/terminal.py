"""Paragraphs and grids on a terminal, drawn with rich; plain aligned text everywhere else.

Colour never carries meaning.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from commonweight.text import Grid, holds_words
from commonweight.view.plain import WIDTH, fill, split_columns, to_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.text import Block


WIDEST = 10_000
"""Room to measure in, so that a table's own width is found."""


def show(blocks: Sequence[Block], stream: TextIO | None = None) -> None:
    """Write paragraphs and grids.

    Args:
        blocks: What to write, from top to bottom.
        stream: Where to; None is stdout.
    """
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
