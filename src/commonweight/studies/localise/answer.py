"""What a localisation answers, on one screen and in full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from commonweight.base.text import DASH, Grid, number
from commonweight.interventions.measure import METRICS
from commonweight.report.answer import Answer, Result
from commonweight.verdicts.localised import which_hold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from commonweight.base.resampled import Resampled
    from commonweight.base.text import Block
    from commonweight.interventions.measure import Metric
    from commonweight.studies.localise.results import Localisation, Measured
    from commonweight.verdicts.localised import SetVerdict

REST = ("study.md holds every table", "study.json and study.csv every number", "figures/ the curves")
SHOWS = {"curves": "Graft and reset: what sets of each size keep, and what they cost"}
TRAINING_ROWS = (
    "Whether the models were trained on these rows is not known here. Give held-out rows: on training rows a set can "
    "seem to hold more than it does."
)
ANEW = (
    "Anew: with the statistics of batch norm re-estimated on the choosing rows, after each graft and reset. Verdicts "
    "go by those that the model has stored."
)
MAPS = {
    "saliency": "saliency (Fisher times squared change)",
    "fisher": "Fisher",
    "change": "size of the change",
    "adam_v": "second moment of Adam",
}


def answer(found: Localisation) -> Answer:
    """Answer in one screen, at the primary fraction."""
    options = found.options
    named = " and ".join(found.models)
    question = f"Do the weights that the {MAPS[options.map]} names hold what {named} learned?"
    said = f"With {100 * options.primary:g} % of the weights in a set, {which_hold(found.verdicts)}"
    return Answer(question, said, _screen(found), tuple(_beware(found)), REST)


def result(found: Localisation, run: Path, figures: Sequence[Path] = ()) -> Result:
    """Give all of it in every form."""
    first = answer(found)
    text = json.dumps({"answer": first.record(), **json.loads(found.to_json())}, indent=1, ensure_ascii=False)
    links = tuple(f"![{SHOWS[place.stem]}]({place.relative_to(run)})" for place in figures if place.suffix == ".svg")
    return Result(first, blocks(found), f"{text}\n", found.to_csv(), links)


def blocks(found: Localisation) -> list[Block]:
    """Lay out verdicts, sets and every cell."""
    options = found.options
    return [
        verdict_grid(found.verdicts, options.primary),
        f"A set suffices, or is necessary, whole if the lower end of its share is at least {options.least_share:g}, "
        f"else in part. A cost below {options.equivalence:g} of the gain counts as none. Sufficiency is judged by "
        "accuracy; necessity, shared and specific by mean log-likelihood. Intervals are over rows and null sets; they "
        "hold for these models and the sets chosen, and say nothing of other training runs: that takes runs of three "
        "training seeds, given to commonweight show together. All else is descriptive.",
        *(_cells(found, model, data, metric) for model, data in _data(found) for metric in METRICS),
        _sets(found),
        *([ANEW] if found.has_batch_norm else []),
        f"Measuring rows: {', '.join(f'{count} of {data}' for data, count in found.rows.items())}. Parameters without "
        "a shared initialisation, and all buffers, are the model's own in every network.",
    ]


def _data(found: Localisation) -> list[tuple[str, str]]:
    return list(dict.fromkeys((each.model, each.data) for each in found.measured))


def _screen(found: Localisation) -> Grid:
    """Own data at the primary fraction: two rows for a model and its base, one for each set."""
    rows: list[tuple[str, ...]] = []
    for model in found.models:
        for way in ("model", "base"):
            rows.append((f"{model}: {way}", *_pair(found, model, None, way, "", "")[:2], DASH, DASH))
        names = found.names
        shown = [(model, "set"), (model, "matched"), (model, "random")]
        if names.shared:
            shown += [(names.shared, "set"), (names.only(model), "set"), (names.only(names.other(model)), "set")]
        for name, which in shown:
            label = f"{model}: {name if which == 'set' else which}"
            primary = found.options.primary
            graft = _pair(found, model, primary, "graft", name, which)
            reset = _pair(found, model, primary, "reset", name, which)
            rows.append((label, *graft, *reset))
    return Grid(
        "Own data: accuracy and mean log-likelihood",
        ("network", "graft", "log-lik.", "reset", "log-lik."),
        tuple(rows),
    )


def _pair(found: Localisation, model: str, fraction: float | None, way: str, name: str, which: str) -> tuple[str, str]:
    each: list[str] = []
    for metric in METRICS:
        cell = found.find(model, fraction, way, name, which, metric)
        each.append(DASH if cell is None else number(cell.score.value, 3))
    return each[0], each[1]


def verdict_grid(verdicts: Sequence[SetVerdict], primary: float) -> Grid:
    """Lay out verdicts with their reasons."""
    rows = tuple(
        (each.asked.subject, each.asked.claim, each.outcome, number(each.p, 3), each.reason) for each in verdicts
    )
    title = f"Verdicts at {100 * primary:g} % of the weights, p after Holm over {len(rows)} claims"
    return Grid(title, ("set", "claim", "verdict", "p", "why"), rows)


def _cells(found: Localisation, model: str, data: str, metric: Metric) -> Grid:
    def row(each: Measured) -> tuple[str, ...]:
        share = f"{each.fraction:g}" if each.fraction is not None else DASH
        which = each.which if each.draws == 1 else f"{each.which} ({each.draws})"
        anew = found.find(
            model, each.fraction, each.way, each.name, each.which, metric, data=data, statistics="re-estimated"
        )
        return (
            f"{each.way} {each.name}".strip(),
            which or DASH,
            share,
            each.score.short(),
            each.difference.short(),
            each.share.short(2),
            *(() if anew is None else (anew.score.short(), anew.share.short(2))),
        )

    asked = (model, data, "stored", metric)
    chosen = [each for each in found.measured if (each.model, each.data, each.statistics, each.metric) == asked]
    reasons = {each.share.reason for each in chosen if each.share.reason}
    said = f"; no shares: {'; '.join(sorted(reasons))}" if reasons else ""
    title = f"{model} on {data}, {metric}: grafts less base, resets less than the model{said}"
    header = ("network", "of", "fraction", "score", "difference", "share", "score anew", "share anew")
    rows = tuple(map(row, chosen))
    return Grid(title, header[: len(rows[0])], rows)


def _sets(found: Localisation) -> Grid:
    rows = tuple(
        (
            f"{model}: {name}",
            f"{fraction:g}",
            str(each.weights),
            number(each.squares),
            number(each.squares_of_matched),
            each.unmatched or DASH,
        )
        for model, of in found.facts.items()
        for fraction, sets in of.items()
        for name, each in sets.items()
    )
    header = ("set", "fraction", "weights", "ΣΔ²", "ΣΔ² matched", "why there is no matched set")
    return Grid("The sets, and how far their weights moved", header, rows)


def _beware(found: Localisation) -> list[str]:
    said = [TRAINING_ROWS]
    unclear = {model: reason for model in found.models if (reason := _gain_reason(found, model))}
    said += [f"{model}: {reason}, so its shares are undefined." for model, reason in unclear.items()]
    unmatched = {
        name: each.unmatched
        for of in found.facts.values()
        for name, each in of[found.options.primary].items()
        if each.unmatched
    }
    said += [f"No matched sets for {name}: {reason}." for name, reason in unmatched.items()]
    return said


def _gain_reason(found: Localisation, model: str) -> str:
    cell = found.find(model, None, "model", metric="log-likelihood")
    share: Resampled | None = None if cell is None else cell.share
    return "" if share is None else share.reason
