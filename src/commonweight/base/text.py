"""Numbers and grids as text: Markdown, HTML, LaTeX and CSV. Knows nothing of footprints and overlaps, serves both."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from commonweight.base.errors import UsageError
from commonweight.base.records import without_nan

Note = Callable[[str], None]


def silent(_: str) -> None:
    """Take a note and tell nobody."""


DASH = "–"

MOST_DECIMALS = 9


# Nearer to 1 than this is 1 up to the rounding of float64 sums.
_ROUNDING = 1e-12

_WORD = re.compile(r"(?!nan\b|inf\b)\b[^\W\d_]{3,}")


@dataclass(frozen=True)
class Grid:
    """A table of finished text: one heading, one header row, body rows, and rows of totals below."""

    title: str
    header: tuple[str, ...]
    """Column heads; the first column holds names, the others numbers or words."""

    rows: tuple[tuple[str, ...], ...]
    totals: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for part in ("rows", "totals"):
            shown = tuple(tuple(map(printable, row)) for row in getattr(self, part))
            object.__setattr__(self, part, shown)
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "header", tuple(map(printable, self.header)))


Block = str | Grid
"""A paragraph or a grid."""

LONGEST = 200
"""Characters of a word that are shown; of a longer one, its beginning and its end."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]|\r(?!\n)"
)
"""Control characters of terminals and of the direction of text, and what no file can hold; tab and new line stay."""

_LONG = re.compile(rf"\S{{{LONGEST + 1},}}")


def without_controls(text: str) -> str:
    """Escape control characters."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Make text fit to be shown: control characters are escaped, and words that would hide all else shortened."""
    text = without_controls(text)
    return _LONG.sub(lambda found: f"{found[0][: LONGEST * 3 // 4]}…{found[0][1 - LONGEST // 4 :]}", text)


def number(value: float, decimals: int = 4) -> str:
    """Write an overlap so that rounding never turns "almost" into "exactly": ``>0.9999``; nan is a dash."""
    if isinstance(decimals, bool) or not isinstance(decimals, int) or not 1 <= decimals <= MOST_DECIMALS:
        raise UsageError(f"decimals must be a whole number from 1 to {MOST_DECIMALS}, got {decimals!r}")
    if math.isnan(value):
        return DASH
    size = abs(value)
    step = 10.0**-decimals
    rounded = f"{size:.{decimals}f}"
    sign = "-" if value < 0 else ""
    if size < 1 - _ROUNDING and float(rounded) == 1:
        return f"{'<' if value < 0 else '>'}{sign}{1 - step:.{decimals}f}"
    if size > 0 and float(rounded) == 0:
        return f"{'>' if value < 0 else '<'}{sign}{step:.{decimals}f}"
    return sign + rounded


def holds_words(grid: Grid, column: int) -> bool:
    """Tell whether a column of a grid holds words, which belong on the left, or numbers, which belong on the right."""
    return column == 0 or any(_WORD.search(row[column]) for row in (*grid.rows, *grid.totals))


def size_words(size: int) -> str:
    """Write a number of bytes with three digits and a decimal unit: ``45.3 kB``."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{size} B" if unit == "B" else f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"


def time_words(seconds: float) -> str:
    """Write a time with the unit that fits: ``80 s``, ``5 min``, ``3.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def to_markdown(blocks: list[Block]) -> str:
    """Write paragraphs and grids as GitHub Markdown."""
    return "\n\n".join(escape_markdown(block) if isinstance(block, str) else _grid(block) for block in blocks) + "\n"


def to_latex(grids: list[Grid]) -> str:
    """Write tables as LaTeX, labelled ``tab:1``, ``tab:2``, …; they need the package ``booktabs``."""
    return "\n\n".join(_latex_grid(grid, place) for place, grid in enumerate(grids, 1)) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write rows as CSV; None and nan are empty fields."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(map(without_nan, rows))
    return stream.getvalue()


def grids_of(blocks: list[Block]) -> list[Grid]:
    """Choose the tables among paragraphs and tables."""
    return [block for block in blocks if isinstance(block, Grid)]


def to_html(blocks: list[Block]) -> str:
    """Write paragraphs and grids as a piece of HTML, without style or script."""
    parts = [
        f"<p>{html.escape(printable(block))}</p>" if isinstance(block, str) else _html_grid(block) for block in blocks
    ]
    return '<div class="commonweight">\n' + "\n".join(parts) + "\n</div>"


def escape_markdown(text: str) -> str:
    r"""Keep a name from breaking a Markdown table: escapes ``\``, ``|`` and ``<``, and joins lines."""
    text = printable(text)
    for sign in ("\\", "|", "<"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.splitlines())


def escape_latex(text: str) -> str:
    """Write text so that LaTeX prints it as it is, a hyphen before a digit as a minus sign."""
    return " ".join(_MINUS.sub("−", printable(text)).translate(_LATEX).splitlines())


_MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")
_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {
        "<": "$<$",
        ">": "$>$",
        "−": "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "·": r"$\cdot$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
    }
    | {
        "√": r"$\surd$",
        "→": r"$\to$",
        "Δ": r"$\Delta$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "λ": r"$\lambda$",
        "…": r"\ldots{}",
    }
)


def _latex_grid(grid: Grid, place: int) -> str:
    sides = "".join("l" if holds_words(grid, column) else "r" for column in range(len(grid.header)))

    def row(cells: tuple[str, ...]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

    parts = [[row(grid.header)], [*map(row, grid.rows)], [*map(row, grid.totals)]]
    body = "\n\\midrule\n".join("\n".join(lines) for lines in parts if lines)
    return (
        f"\\begin{{table}}\n\\caption{{{escape_latex(grid.title)}}}\n\\label{{tab:{place}}}\n\\centering\n\\begin{{tabular}}{{{sides}}}\n"
        f"\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}"
    )


def _grid(grid: Grid) -> str:
    sides = ("---" if holds_words(grid, column) else "---:" for column in range(1, len(grid.header)))
    lines = [_row(grid.header), "|".join(["|---", *sides]) + "|"]
    lines += [_row(row) for row in grid.rows]
    lines += [_row(row, mark="**") for row in grid.totals]
    return f"**{escape_markdown(grid.title)}**\n\n" + "\n".join(lines)


def _row(cells: tuple[str, ...], mark: str = "") -> str:
    return "| " + " | ".join(f"{mark}{escape_markdown(cell)}{mark}" if cell else "" for cell in cells) + " |"


def _html_grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in grid.header)
    return (
        f"<table>\n<caption>{html.escape(grid.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(_html_row(row) for row in grid.rows)}</tbody>\n"
        f"<tfoot>\n{''.join(_html_row(row) for row in grid.totals)}</tfoot>\n</table>"
    )


def _html_row(cells: tuple[str, ...]) -> str:
    name, *numbers = (html.escape(cell) for cell in cells)
    return f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in numbers) + "</tr>\n"
