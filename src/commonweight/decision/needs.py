"""What each verdict takes, and what is said without it."""

from __future__ import annotations

from typing import NamedTuple

from commonweight.decision.verdict import CANNOT_SAY, FEWEST_EFFECTIVE, NOT_ABOVE
from commonweight.footprint.copies import MOST_COPIED
from commonweight.overlaps.estimate import LEVEL
from commonweight.text import Grid


class Requirement(NamedTuple):
    """Something a verdict takes."""

    name: str
    demand: str
    """When it is met."""

    contrast: str
    """What a contrast says without it; empty where it is not asked."""

    null: str
    """What a single overlap says without it; empty where it is not asked."""


NEEDS: tuple[Requirement, ...] = (
    Requirement(
        "shortcut learned",
        "both models are at least halfway from a constant answer to all right on their own shortcut (asked of the "
        "study of shortcuts)",
        CANNOT_SAY,
        "",
    ),
    Requirement("two footprints", "the two of a pair hold different numbers (asked of tables)", CANNOT_SAY, CANNOT_SAY),
    Requirement(
        "same label rule", "every Fisher behind it has the same label rule (asked of tables)", CANNOT_SAY, CANNOT_SAY
    ),
    Requirement(
        "distinct rows",
        f"at most {100 * MOST_COPIED:.0f} % of the rows behind it have copies in other folds, counted (asked of tables "
        "of Fishers; of a single overlap without a count the answer stands, and the reason says so)",
        CANNOT_SAY,
        CANNOT_SAY,
    ),
    Requirement(
        "at most 1",
        "no corrected overlap behind it has an interval wholly above 1, which noise in common does (of several wider, "
        "by Bonferroni's rule; asked of tables of Fishers with folds)",
        CANNOT_SAY,
        CANNOT_SAY,
    ),
    Requirement(
        "two networks",
        "the weights of the two differ: one network shares all of its own, in every layer (asked of two layers)",
        CANNOT_SAY,
        "",
    ),
    Requirement(
        "beyond the null too",
        "the interval of the difference of corrected - null excludes 0 on the side of the difference of corrected "
        "overlaps, since layers have nulls of their own (asked of two layers)",
        CANNOT_SAY,
        "",
    ),
    Requirement("same rows", "both sides were measured on the same source rows", CANNOT_SAY, ""),
    Requirement("common start", "the models of each overlap have a common start, measured", CANNOT_SAY, ""),
    Requirement(
        "noise taken out",
        "both overlaps of Fishers are corrected or extrapolated: noise lowers raw ones, and not both alike (masks and "
        "activities: not asked)",
        CANNOT_SAY,
        "",
    ),
    Requirement(
        "effective examples",
        f"at least {FEWEST_EFFECTIVE} in every Fisher behind it; of a layer, of that layer (masks and activities: not "
        "asked)",
        CANNOT_SAY,
        CANNOT_SAY,
    ),
    Requirement(
        "interval",
        "at least 3 folds, or 2 seeds, with a finite value in each, and not all equal unless all are 0",
        CANNOT_SAY,
        CANNOT_SAY,
    ),
    Requirement(
        "excludes 0", f"the {100 * LEVEL:.0f} % interval; of corrected - null it lies above 0", CANNOT_SAY, NOT_ABOVE
    ),
)
"""What each verdict takes, in the order in which it is asked. Controls are shown beside, and decide nothing."""


def needs_grid() -> Grid:
    """Lay out what each verdict takes.

    Returns:
        A row per requirement, and what is said where it is not met.
    """
    rows = tuple((need.name, need.demand, need.contrast or "not asked", need.null or "not asked") for need in NEEDS)
    return Grid("What a verdict takes", ("need", "met when", "contrast without it", "single overlap without it"), rows)
