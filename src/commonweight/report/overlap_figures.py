"""The figures of a table of overlaps: all pairs as a heat map, and each pair layer by layer."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from commonweight.base.estimate import Estimate
from commonweight.footprints.footprint import IMPORTANCES
from commonweight.overlaps.measures.table_of_measures import MEASURES
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.report.answer import CUT, short
from commonweight.report.curves import DepthCurve, plot_depth
from commonweight.report.files import COLORS, new_figure
from commonweight.report.maps import colour_bar, plot_overlap_matrix
from commonweight.report.overlap import spoken, spoken_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from commonweight.overlaps.table.numbers import Quantity
    from commonweight.overlaps.table.table import OverlapTable

TWO_COLUMNS = 7.0
"""Inches: as wide as the text of a paper in two columns."""

ONE_COLUMN = 3.4
MOST_INCHES = 9.0
MOST_NAMES = 60
"""Layers that are all named below a figure."""

CELL = 0.45
"""Inches of a cell of a heat map."""


def figures_of(table: OverlapTable) -> Iterator[tuple[str, Figure]]:
    """Draw a table: ``overlaps``, where there are several pairs, and ``layers``."""
    if len(table.names) > 2:
        side = min(max(ONE_COLUMN, 1.6 + CELL * len(table.names)), MOST_INCHES)
        figure = new_figure(side + 0.6, side)
        ax = figure.subplots()
        drawn = plot_overlap_matrix(table, ax)
        colour_bar(drawn, [ax])
        yield "overlaps", figure
    yield "layers", layer_figure(table)


def layer_figure(table: OverlapTable) -> Figure:
    """Draw corrected overlaps layer by layer with intervals and nulls, and below them the noise ceilings."""
    # Without folds the overlaps are raw; those of masks are beyond chance where that is known.
    pairs = list(combinations(table.names, 2))
    shown = pairs[: len(COLORS)]
    has_folds = table.kind in IMPORTANCES and table.resampled is not None
    figure = new_figure(TWO_COLUMNS, 5.6 if has_folds else 3.6)
    axes = figure.subplots(1 + has_folds, 1, sharex=True, squeeze=False, height_ratios=(2, 1)[: 1 + has_folds])[:, 0]
    plot_depth([_curve(table, pair, color) for pair, color in zip(shown, COLORS, strict=False)], axes[0])
    axes[0].set_ylabel(f"{MEASURES[table.kind].words}{', corrected' if has_folds else ''}")
    left = f"; {len(pairs) - len(shown)} more pairs are not drawn" if len(pairs) > len(shown) else ""
    said = "95 % bands over folds; dotted: overlap of shuffled Fishers" if has_folds else "raw"
    axes[0].set_title(f"{said}{left}", fontsize="small")
    if has_folds:
        ceilings = table.noise_ceiling.by_layer
        plot_depth(
            [
                DepthCurve(
                    spoken(table, name),
                    {layer: Estimate(float(values[i]), (), "folds") for layer, values in ceilings.items()},
                    COLORS[i % len(COLORS)],
                    "-" if i < len(COLORS) else "--",
                )
                for i, name in enumerate(table.names)
            ],
            axes[1],
        )
        axes[1].set_ylabel("noise ceiling")
    for ax in axes:
        ax.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    names = [short(layer or WHOLE).removeprefix(CUT) for layer in table.layers]
    step = -(-len(names) // MOST_NAMES)
    axes[-1].set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=6)
    return figure


def _curve(table: OverlapTable, pair: tuple[str, str], color: str) -> DepthCurve:
    has_folds = table.kind in IMPORTANCES and table.resampled is not None
    of: Quantity = "corrected" if has_folds else "raw"
    null = {layer: table.estimate("null", *pair, layer).value for layer in table.layers} if has_folds else None
    if table.kind == "supermask":
        i, j = map(table.names.index, pair)
        null = {layer: float(values[i, j]) for layer, values in table.chance.by_layer.items()}
    estimates = {layer: table.estimate(of, *pair, layer) for layer in table.layers}
    return DepthCurve(spoken_pair(table, pair), estimates, color, null=null)
