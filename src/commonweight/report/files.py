"""What the files of all studies have in common: Markdown tables, figures as PNG, PDF and SVG, and their colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.text import Grid, Note, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
INK = "#010101"
"""Of words and axes: black to the eye, and not the black of what is drawn, so that a page can write it in its own."""

METADATA: Mapping[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Of the files; without a date, so that the same figure is the same bytes."""

STYLE: Any = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,  # TrueType: journals refuse the other kind
    "svg.fonttype": "none",
    "svg.hashsalt": "commonweight",
    "text.parse_math": False,  # a name with dollar signs is a name
}
"""Of all figures, in Matplotlib's words."""

DOTS = 120
"""Per inch of a PNG."""

MARGIN = 0.1
"""Inches around a figure."""

COLORS = (
    "#1b6ca8",
    "#c4532b",
    "#3a8f5c",
    "#8b5aa8",
    "#d9a441",
    "#5bb5c9",
    "#b3446c",
    "#8f9a4b",
    "#7a5c3e",
    "#6f7fd0",
)
"""By the order of what a plan asks for."""


def grid_of(title: str, corner: str, rows: Mapping[str, Mapping[str, str]]) -> Grid:
    """Lay out a table: row -> column -> text, with the columns of the first row."""
    columns = next(iter(rows.values()))
    return Grid(title, (corner, *columns), tuple((name, *row.values()) for name, row in rows.items()))


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of its own, not pyplot's: nothing global is touched, and no display is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write_figures(
    figures: Iterable[tuple[str, Figure]], folder: Path, note: Note = silent, forms: Sequence[str] = FORMATS
) -> list[Path]:
    """Write figures, each with its name, in some forms, drawing them one by one; or say what that needs."""
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError as error:
        note(f"no figures: they need {error.name}; pip install 'commonweight[plot]', then the same again")
        return []
    with rc_context(STYLE):
        return [path for name, figure in figures for path in _save(figure, folder, name, forms)]


def _save(figure: Figure, folder: Path, name: str, forms: Sequence[str]) -> list[Path]:
    """Write a figure: laid out once, the same bytes each time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot hold figures: {error}; choose another folder") from None
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)  # or each format would lay it out again
    box = figure.get_tightbbox().padded(MARGIN)
    paths = [folder / f"{name}.{form}" for form in forms]
    for path in paths:
        figure.savefig(path, dpi=DOTS, bbox_inches=box, metadata=METADATA[path.suffix])
    return paths


def open_axes(ax: Axes) -> None:
    """Take the frame away on top and on the right."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
