"""Interventions: sets of weights that a map names, put onto the initialisation or back to it, and what that does."""

from commonweight.interventions.graft_reset import Swappable
from commonweight.interventions.masks import MaskCell, MaskLocalisation, localise_masks
from commonweight.interventions.matched import Nulls, matched_sets, random_set
from commonweight.interventions.measure import (
    RowResampling,
    RowScores,
    necessity,
    reestimated,
    row_scores,
    sufficiency,
)
from commonweight.interventions.sets import Sets, equal_parts, top_set
from commonweight.interventions.tall import tall_masks

__all__ = [
    "MaskCell",
    "MaskLocalisation",
    "Nulls",
    "RowResampling",
    "RowScores",
    "Sets",
    "Swappable",
    "equal_parts",
    "localise_masks",
    "matched_sets",
    "necessity",
    "random_set",
    "reestimated",
    "row_scores",
    "sufficiency",
    "tall_masks",
    "top_set",
]
