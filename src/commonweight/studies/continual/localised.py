"""What switching off bits of masks did, in words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from commonweight.base.text import DASH, Block, Grid, number
from commonweight.interventions.masks import Off
from commonweight.interventions.measure import METRICS, STATISTICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.studies.continual.results import ContinualStudy

READING = (
    "Of each mask: the bits that both masks of a pair have (shared) are switched off, or those that it has alone "
    "(only), or as many random bits of it, or equally large parts of the first two, with as many bits in every layer "
    "and 20 quantile bins of |frozen weight|. Share is the part of what the task has above chance that is lost without "
    "the shared bits. First the stored batch-norm statistics; behind / those re-estimated with the bits off. Only "
    "log-likelihood with the stored ones is judged: shared bits are necessary in a task if a part of them costs it "
    "more than an equally large part of its own, else those may be specific. Bits of one mask alone cost the other "
    "task nothing, as they are off there. Intervals are over {rows} rows a task and over draws. They hold for this "
    "network (seed 0, {approach}), and say nothing of other training runs."
)


def localised_sentence(study: ContinualStudy) -> list[str]:
    """Say in half a sentence how often shared bits are necessary; nothing where nobody asked."""
    if study.localised is None:
        return []
    found = {
        claim: [each["outcome"] != "inconclusive" for each in study.localised["verdicts"] if each["claim"] == claim]
        for claim in ("is necessary", "shared", "specific")
    }
    necessary, shared, specific = (f"{sum(each)} of {len(each)}" for each in found.values())
    return [
        f"switched off, the bits in common cost more than others of a mask in {necessary} cases (in both tasks: "
        f"{shared}), those of one mask alone in {specific}"
    ]


def localised_blocks(study: ContinualStudy) -> list[Block]:
    """Lay out scores and verdicts; nothing where nobody asked."""
    found = study.localised
    if found is None:
        return []
    rows = max(found["measuring_rows"].values())
    grids = [_scores(found, metric) for metric in METRICS]
    return [*grids, _verdicts(found), READING.format(rows=f"up to {rows}", approach=next(iter(study.runs)))]


def _scores(found: Mapping[str, Any], metric: str) -> Grid:
    """One row per task of a pair; stored / re-estimated statistics."""
    rows: dict[tuple[str, str], dict[tuple[str, str], Mapping[str, Any]]] = {}
    for cell in found["cells"]:
        if cell["metric"] == metric:
            a, b = cell["pair"]
            rows.setdefault((f"{a} and {b}", cell["task"]), {})[cell["off"], cell["statistics"]] = cell

    def score(cells: Mapping[tuple[str, str], Mapping[str, Any]], off: str, what: str = "score") -> str:
        values = [cells[off, statistics][what]["value"] for statistics in STATISTICS]
        return " / ".join(DASH if value is None else number(value, 3) for value in values)

    lines = tuple(
        (
            pair,
            task,
            *(str(cells[off, "stored"]["bits"]) for off in ("shared", "only")),
            *(score(cells, off) for off in get_args(Off)),
            score(cells, "shared", "share"),
        )
        for (pair, task), cells in rows.items()
    )
    header = ("pair", "task", "bits shared", "only", *get_args(Off), "share")
    reasons = {
        each["share"]["undefined"]: None
        for each in found["cells"]
        if each["metric"] == metric and each["share"]["undefined"]
    }
    said = f"; no share: {'; '.join(reasons)}" if reasons else ""
    return Grid(f"Bits of a mask switched off: {metric}, stored / re-estimated statistics{said}", header, lines)


def _verdicts(found: Mapping[str, Any]) -> Grid:
    rows = tuple((each["sentence"], number(each["p"], 3), each["reason"]) for each in found["verdicts"])
    return Grid(f"Verdicts on bits, p after Holm over {len(rows)} claims", ("verdict", "p", "why"), rows)
