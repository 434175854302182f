"""Paragraphs and grids on a terminal, drawn with rich; plain aligned text everywhere else. Colour never carries meaning."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from commonweight.overlap.text import Grid
from commonweight.view.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.overlap.text import Block


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
            console.print(Text(block))
        else:
            table = Table(title=Text(block.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
            for i, head in enumerate(block.header):
                table.add_column(Text(head), justify="right" if i else "left", overflow="fold")
            for row in block.rows:
                table.add_row(*map(Text, row))
            if block.totals:
                table.add_section()
            for row in block.totals:
                table.add_row(*map(Text, row))
            console.print(table)
        console.print()
