"""A benchmark of maps: how well does a map name the weights that hold a planted shortcut, and beyond what?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped,unused-ignore]

from commonweight.base.estimate import Estimate, signed
from commonweight.base.text import Grid
from commonweight.studies.planted.maps import changed, of_rows
from commonweight.studies.planted.models import Planted, PlantedPlan, placebo_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from commonweight.studies.planted.maps import Map, PlantedMap


@dataclass(frozen=True)
class PlantedScore:
    """How well one map names the planted weights of one model; areas under the ROC curve, .5 is chance."""

    name: str
    """Of the map."""

    plan: PlantedPlan
    pooled: float
    """All weights together."""

    per_parameter: float
    """Mean over the parameters that have weights of both kinds."""

    change: float
    """Pooled area of the size of the change, in the same model."""

    placebo: float
    """Pooled area of the same map in the model whose set was given ordinary rows."""

    @property
    def credit(self) -> float:
        """What the map knows beyond the change and the placebo: pooled area less the larger of the two."""
        return self.pooled - max(self.change, self.placebo)


def auroc(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Give the area under the ROC curve from ranks (Mann and Whitney); nan where one side is empty."""
    inside = int(positive.sum())
    outside = len(positive) - inside
    if not inside or not outside:
        return float("nan")
    return float((rankdata(values)[positive].sum() - inside * (inside + 1) / 2) / (inside * outside))


def areas(found: Mapping[str, Tensor], planted: Planted) -> tuple[float, float]:
    """Score a map: pooled, and mean over parameters. Weights of the set that training left as they were are left out.

    Args:
        found: The map.
        planted: The model.

    Returns:
        Both areas.
    """
    change = changed(planted)
    values, truths = [], []
    for name in change:
        inside = planted.chosen[name].flatten().numpy()
        counted = ~inside | (change[name].flatten().numpy() > 0)
        values.append(found[name].detach().double().flatten().numpy()[counted])
        truths.append(inside[counted])
    each = [auroc(value, truth) for value, truth in zip(values, truths, strict=True)]
    return auroc(np.concatenate(values), np.concatenate(truths)), float(np.nanmean(each))


def score_maps(maps: Mapping[str, PlantedMap], plan: PlantedPlan, folder: Path) -> list[PlantedScore]:
    """Score maps, each by its name, on one model and its placebo; what is not in the folder is trained first."""
    planted, placebo = Planted.open(plan, folder), Planted.open(placebo_of(plan), folder)
    change, _ = areas(changed(planted), planted)
    scores = []
    for name, make in maps.items():
        pooled, mean = areas(make(planted), planted)
        null, _ = areas(make(placebo), placebo)
        scores.append(PlantedScore(name, plan, pooled, mean, change, null))
    return scores


def score_map(name: str, make: Map, plans: Sequence[PlantedPlan], folder: Path) -> Grid:
    """Score a map of your own against planted locations.

    Args:
        name: Of the map.
        make: ``(model, initialisation, rows)`` gives a tensor of the parameter's shape by its name; the larger an
            entry, the likelier is the weight to hold what the rows have in common.
        plans: The models: a plan for each; those that differ in their seed alone become one line.
        folder: Where models are kept; those that are not there are trained, in seconds each.

    Returns:
        The table; ``commonweight.base.text.to_markdown([table])`` writes it. Models that do not hold the shortcut in
        their set alone are left out, and counted.
    """
    scores = []
    left_out = 0
    for plan in plans:
        if Planted.open(plan, folder).check()["holds"]:
            scores += score_maps({name: of_rows(make)}, plan, folder)
        else:
            left_out += 1
    return table_of(scores, f"; {left_out} models not scored" if left_out else "")


def table_of(scores: Sequence[PlantedScore], more: str = "") -> Grid:
    """Average scores over seeds, a line for each map and kind of set.

    Args:
        scores: The scores.
        more: What to add to the heading.

    Returns:
        The table, with 95 % intervals of the credit over seeds.
    """
    groups: dict[tuple[str, ...], list[PlantedScore]] = {}
    for score in scores:
        groups.setdefault((score.plan.label, score.name), []).append(score)
    rows = []
    for (where, name), of in groups.items():
        means = [
            float(np.mean([getattr(each, field) for each in of]))
            for field in ("pooled", "per_parameter", "change", "placebo")
        ]
        credit = Estimate.over_seeds([each.credit for each in of])
        rows.append((where, name, str(len(of)), *(f"{mean:.3f}" for mean in means), signed(credit)))
    header = ("set", "map", "seeds", "AUROC", "per parameter", "change", "placebo", "credit")
    return Grid(f"Which map names the planted weights{more}", header, tuple(rows))
