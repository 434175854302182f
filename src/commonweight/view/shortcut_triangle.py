"""A map of the triangle between three models: one panel per set, one cell per average."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from commonweight.errors import UsageError
from commonweight.view.shortcuts import triangle_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

    from commonweight.studies.shortcuts.results import ShortcutStudy

CORNERS = np.array([[0.5, math.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
"""Places of the three models: the first on top, the second left, the third right."""

DARK = 0.6
"""Below this accuracy numbers are white."""


def plot_triangle(study: ShortcutStudy, ax: Axes, *, data: str = "original") -> PolyCollection:
    """Draw the accuracy of averages of the first three models, with weights all over their triangle; means over seeds.

    Args:
        study: What was found.
        ax: Where to draw.
        data: The set: ``original`` or one of the three shortcuts.

    Returns:
        The cells, six-cornered, in the order of the points; each holds its accuracy in percent.

    Raises:
        UsageError: If the study has fewer than three shortcuts, or there is no such set.
    """
    from matplotlib.collections import PolyCollection

    points, accuracy = triangle_accuracy(study)
    if data not in accuracy:
        raise UsageError(f"the triangle has no set {data!r}; it has {', '.join(accuracy)}")
    values = np.array(accuracy[data])
    places = np.array(points) @ CORNERS
    step = min(weight for point in points for weight in point if weight > 0)
    turns = np.arange(6) * math.pi / 3 + math.pi / 6
    cell = np.stack([np.cos(turns), np.sin(turns)], axis=1) * step / math.sqrt(3)
    cells = PolyCollection([place + cell for place in places], cmap="viridis", edgecolors="w", linewidths=0.8)
    cells.set_array(values)
    cells.set_clim(0, 1)
    ax.add_collection(cells)
    for place, value in zip(places, values, strict=True):
        color = "w" if value < DARK else "k"
        ax.text(place[0], place[1], f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    for name, (x, y), where in zip(study.triangles[0]["corners"], CORNERS, ((0, 1), (-1, -1), (1, -1)), strict=True):
        ax.text(x + 0.06 * where[0], y + 0.13 * where[1], name, ha="center", va="center", fontsize=9)
    ax.set_xlim(-0.16, 1.16)
    ax.set_ylim(-0.2, 1.06)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(f"{data} rows", fontsize="medium")
    return cells
