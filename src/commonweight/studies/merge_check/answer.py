"""What a merge check answers, on one screen and in full."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Grid, number
from commonweight.interventions.measure import METRICS
from commonweight.report.answer import Answer, Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.resampled import Resampled
    from commonweight.base.text import Block
    from commonweight.interventions.measure import Metric
    from commonweight.studies.merge_check.beside import Pair
    from commonweight.studies.merge_check.plan import Members
    from commonweight.studies.merge_check.results import Merge, MergeCheck

MOST_ROWS = 15
"""Merges on the screen."""

REST = (
    "recipe.json says how to merge",
    "study.md holds every table",
    "study.json and study.csv every number",
    "figures/ the ranking",
)
SHOWS = {"merges": "The best merge of each method less its parents: mean over the data sets, and the worst one"}
TRAINING_ROWS = (
    "Whether the models were trained on these rows is not known here. Give held-out rows: on training rows a parent is "
    "better than it should be, and a merge seems to lose more."
)


def answer(found: MergeCheck) -> Answer:
    """Answer in one screen."""
    return Answer("Will these models merge?", _said(found), _screen(found), (*found.beside.beware, TRAINING_ROWS), REST)


def result(found: MergeCheck, run: Path, figures: Sequence[Path] = (), not_for_mergekit: str = "") -> Result:
    """Give all of it in every form."""
    kit = f"no mergekit.yaml: {not_for_mergekit}" if not_for_mergekit else "mergekit.yaml the same for mergekit"
    first = replace(answer(found), rest=(REST[0], kit, *REST[1:]))
    text = json.dumps({"answer": first.record(), **json.loads(found.to_json())}, indent=1, ensure_ascii=False)
    links = tuple(f"![{SHOWS[place.stem]}]({place.relative_to(run)})" for place in figures if place.suffix == ".svg")
    return Result(first, blocks(found), f"{text}\n", found.to_csv(), links)


def blocks(found: MergeCheck) -> list[Block]:
    """Lay out parents, merges, pairs and layers."""
    return [
        _parents(found),
        *(_merges(found, metric) for metric in METRICS),
        _pairs(found),
        _layers(found),
        f"Layers go by at most {found.options.depth} levels of the module tree. In the best merge, chosen on the other "
        "half of the rows, a layer gets the weights of one parent back, and so do random weights outside it, as many. "
        "A layer conflicts if the mean log-likelihood over all data sets rises, and rises more than by random weights.",
        f"Measuring rows: {', '.join(f'{count} of {data}' for data, count in found.rows.items())}. Intervals are over "
        "rows (and random sets); they hold for these models, and say nothing of other training runs.",
    ]


def _said(found: MergeCheck) -> str:
    best, mean = found.best, found.best.mean()
    lead = "At a cost" if mean.high < 0 else "Yes, with a gain" if mean.low > 0 else "No cost is shown"
    accuracy = best.mean("accuracy")
    shown = "" if accuracy.reason else f", and accuracy by {_signed(accuracy)}"
    worst = best.changes["log-likelihood"][best.worst]
    said = (
        f"{lead}: against its parents, the best merge of all models ({best.name}) changes the mean log-likelihood by "
        f"{_signed(mean)}{shown}; the worst data set is {best.worst}, {_signed(worst)}"
    )
    pair = found.best_pair
    said += f"; the best pair is {pair.name}, {_signed(pair.mean())}. " if best.members != pair.members else ". "
    confirmed = [
        f"{each.asked.layer} (back to {each.asked.parent}: {_signed(each.gain)})" for each in found.conflicting
    ]
    return said + (
        f"Layers confirmed to conflict: {', '.join(confirmed)}." if confirmed else "No layer is confirmed to conflict."
    )


def _screen(found: MergeCheck) -> Grid:
    """Rank the best merge of each method, for every group of models; the best of all is always shown."""
    others = [merge for merge in found.shortlist if merge is not found.best]
    shortlist = [*others[: MOST_ROWS - 1], found.best]
    left = len(found.shortlist) - len(shortlist)
    rows = [(merge.mean().value, _row(found, merge)) for merge in shortlist]
    rows.append((0.0, ("each parent by itself", number(0.0, 3), DASH, DASH, DASH)))
    rows.sort(key=lambda row: -row[0])
    more = f"; {left} more in study.md" if left else ""
    return Grid(
        f"Mean change of the log-likelihood, nats per row, best of each method{more}",
        ("merge", "mean [95 %]", "worst", "overlap", "cosine"),
        tuple(row for _, row in rows),
    )


def _row(found: MergeCheck, merge: Merge) -> tuple[str, ...]:
    pair = _pair_of(found, merge.members)
    beside = (math.nan, math.nan) if pair is None else (pair.own_data, pair.cosine)
    worst = merge.changes["log-likelihood"][merge.worst]
    return (
        merge.name,
        _signed(merge.mean()),
        f"{worst.value:+.3f} {merge.worst}",
        *(number(each, 2) for each in beside),
    )


def _pair_of(found: MergeCheck, members: Members) -> Pair | None:
    return next((pair for pair in found.beside.pairs if pair.members == members), None)


def _parents(found: MergeCheck) -> Grid:
    rows = tuple((data, *(found.parents[metric][data].short() for metric in METRICS)) for data in found.models)
    return Grid("Every parent on its own data", ("model", *METRICS), rows)


def _merges(found: MergeCheck, metric: Metric) -> Grid:
    rows = tuple(
        (
            each.name,
            _signed(each.mean(metric)),
            *(_signed(each.changes[metric][data]) if data in each.changes[metric] else DASH for data in found.models),
        )
        for each in found.merges
    )
    return Grid(f"Every merge less the own parent, {metric}", ("merge", "mean", *found.models), rows)


def _pairs(found: MergeCheck) -> Grid:
    rows = tuple(
        (
            " + ".join(pair.members),
            *(number(each) for each in (pair.own_data, pair.same_data, pair.cosine, pair.signs, pair.distance)),
        )
        for pair in found.beside.pairs
    )
    header = ("pair", "overlap, own data", "overlap, same data", "cosine of changes", "sign agreement", "distance")
    return Grid("Every pair: Fisher overlaps, changes, and relative distance of the weights", header, rows)


def _layers(found: MergeCheck) -> Block:
    if not found.layers:
        return f"No layer of {found.best.name} gained on the choosing half when restored, so none was tested."
    rows = tuple(
        (
            layer.asked.layer,
            layer.asked.parent,
            _signed(layer.gain),
            _signed(layer.beyond_random),
            verdict.outcome,
            number(verdict.p, 3),
            verdict.reason,
        )
        for layer, verdict in zip(found.layers, found.verdicts, strict=True)
    )
    title = f"Candidate layers of {found.best.name}, p after Holm over {len(rows)} claims"
    return Grid(title, ("layer", "restored to", "gain", "beyond random", "verdict", "p", "why"), rows)


def _signed(change: Resampled) -> str:
    """Write a change with its interval."""
    return DASH if change.reason else f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
