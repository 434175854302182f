"""Paragraphs and grids as aligned plain text: what a pipe, a file or a screen reader gets."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commonweight.overlaps.text import Block, Grid

WIDTH = 100


def to_plain(blocks: Sequence[Block]) -> str:
    """Write paragraphs and grids.

    Args:
        blocks: What to write, from top to bottom.

    Returns:
        Text ending in a line break; names on the left, numbers aligned on the right, totals under a rule.

    Example:
        >>> from commonweight.overlaps.text import Grid
        >>> print(to_plain([Grid("Overlap", ("layer", "a and b"), (("head", "0.5000"),))]))
        Overlap
        layer  a and b
        -----  -------
        head    0.5000
    """
    return "\n\n".join(fill(b) if isinstance(b, str) else _grid(b) for b in blocks) + "\n"


def fill(paragraph: str, width: int = WIDTH) -> str:
    """Break a paragraph into lines between words, never inside one: a path stays whole.

    Args:
        paragraph: The text.
        width: Most characters per line.

    Returns:
        The lines.
    """
    return textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False)


def _grid(grid: Grid) -> str:
    every = [grid.header, *grid.rows, *grid.totals]
    widths = [max(len(row[i]) for row in every) for i in range(len(grid.header))]
    rule = "  ".join("-" * width for width in widths)

    def line(row: tuple[str, ...]) -> str:
        name, *numbers = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([name, *numbers]).rstrip()

    head = [line(grid.header), rule] if any(grid.header) else []
    lines = [grid.title, *head, *map(line, grid.rows)]
    if grid.totals:
        lines += [rule, *map(line, grid.totals)]
    return "\n".join(lines)
