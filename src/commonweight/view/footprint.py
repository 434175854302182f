"""What a measured footprint, and a verification, look like in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from commonweight.overlaps.text import DASH, Block, Grid

if TYPE_CHECKING:
    from commonweight.footprint.footprint import Footprint
    from commonweight.footprint.routes import Verification

MOST_NAMED = 10
FEW_EXAMPLES = 20
"""Below this many effective examples an overlap decides nothing."""


def summary(footprint: Footprint, folder: str) -> list[Block]:
    """Describe a footprint.

    Args:
        footprint: A Fisher.
        folder: Where it lies.

    Returns:
        One grid of facts, and a paragraph for whatever deserves attention.
    """
    facts = footprint.metadata
    generic, unused = dict(facts.get("generic") or {}), list(facts.get("unused") or [])
    effective = footprint.effective_examples
    verified = facts.get("verified")
    worst = None if verified is None else verified["largest_error"]
    rows = [
        ("examples", str(footprint.count)),
        ("folds", str(len(footprint.folds) or 1)),
        ("label rule", str(facts.get("label_rule"))),
        ("likelihood", str(facts.get("loss"))),
        ("parameters", f"{len(footprint)} tensors in {len(footprint.layers)} layers"),
        ("trace", f"{footprint.trace():.6g}"),
        ("effective examples", DASH if math.isnan(effective) else f"{effective:.1f}"),
        ("measured by rule", str(len(footprint) - len(generic) - len(unused))),
        ("measured one example at a time", str(len(generic))),
        ("unused by the data", str(len(unused))),
        ("largest error of a rule", DASH if worst is None else f"{worst:.1e}"),
    ]
    blocks: list[Block] = [Grid("Diagonal Fisher", ("", ""), tuple(rows)), f"Written to {folder}"]
    if generic:
        reasons = [f"{name} ({reason})" for name, reason in generic.items()]
        blocks.append(f"Measured one example at a time, exact but slower: {_some(reasons)}.")
    if unused:
        blocks.append(f"Unused by the data, their Fisher is zero: {_some(unused)}.")
    if effective < FEW_EXAMPLES:
        blocks.append(
            f"Only {effective:.1f} effective examples: a few examples carry nearly all of the trace, so an overlap "
            "with this footprint says little."
        )
    return blocks


def verification(report: Verification) -> list[Block]:
    """Describe a verification.

    Args:
        report: What ``verify`` found.

    Returns:
        One row per parameter, and the totals.
    """
    rows = tuple(
        (
            name,
            route.route,
            route.rule or DASH,
            DASH if math.isnan(route.error) else f"{route.error:.1e}",
            route.reason or DASH,
        )
        for name, route in report.routes.items()
    )
    count = {kind: len(report.of(kind)) for kind in ("rule", "generic", "dormant")}
    return [
        Grid("Routes", ("parameter", "route", "rule", "error", "reason"), rows),
        f"Largest error of a rule that will be used: {report.largest_error:.1e} of the parameter's largest gradient, "
        f"on {report.rows} rows; accepted up to {report.tolerance:.0e}. {count['rule']} parameters take a rule, "
        f"{count['generic']} are measured one example at a time, {count['dormant']} were not used by these rows.",
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown}, … ({len(names)} in all)"
