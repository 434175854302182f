"""What a measured footprint, and a verification, look like in words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from commonweight.base.records import without_nan
from commonweight.base.text import DASH, Block, Grid, csv_text
from commonweight.diagonal_fisher.agreement import beware_of_labels
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.report.answer import Answer, Result, short
from commonweight.verdicts.rules import SMALLEST_EFFECTIVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.diagonal_fisher.verification import Verification
    from commonweight.footprints.footprint import Footprint

MOST_NAMED = 10
MOST_LAYERS = 12


def summary(footprint: Footprint, folder: str) -> list[Block]:
    """Describe a footprint."""
    facts = footprint.metadata
    generic, unused = dict(facts.get("generic") or {}), list(facts.get("unused") or [])
    effective = footprint.effective_sample_size
    verified = facts.get("verified")
    worst = None if verified is None else verified["largest_error"]
    rows = [
        *_of_what(footprint),
        ("folds", str(len(footprint.folds) or 1)),
        ("Fisher type", str(facts.get("fisher_type"))),
        ("likelihood", str(facts.get("loss"))),
        ("parameters", f"{_measured(footprint)} in {_counted(len(footprint.layers), 'layer')}"),
        ("trace", f"{footprint.trace():.6g}"),
        *_distinct(footprint),
        ("effective sample size", DASH if math.isnan(effective) else f"{effective:.1f}"),
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
    if effective < SMALLEST_EFFECTIVE:
        blocks.append(f"{_few(footprint.count, effective)}, so an overlap with this footprint says little.")
    return [*blocks, *(f"{sentence}." for sentence in beware_of_labels({folder: footprint}))]


def result(footprint: Footprint, folder: str, beside: Sequence[Block] = ()) -> Result:
    """Describe a footprint in every form; ``beside`` is what else was found while it was measured."""
    found, traces = answer(footprint, folder), footprint.layer_traces()
    record = {
        "answer": found.record(),
        "examples": footprint.count,
        "trace": footprint.trace(),
        "effective_sample_size": footprint.effective_sample_size,
        "layers": traces,
        "metadata": footprint.metadata,
    }
    text = json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    blocks = [*beside, *summary(footprint, folder), traces_grid(footprint)]
    return Result(found, blocks, text, csv_text(("layer", "trace"), traces.items()))


def answer(footprint: Footprint, folder: str) -> Answer:
    """Say in which layers a Fisher lies, on one screen."""
    model, data = _names(footprint)
    traces = footprint.layer_traces()
    largest = max(traces, key=lambda layer: traces[layer])
    effective = footprint.effective_sample_size
    size = "not measured" if math.isnan(effective) else f"{effective:.1f}"
    share = _percent(traces[largest], math.fsum(traces.values()))
    said = (
        f"{share} of the trace lie in {short(largest or WHOLE)}. It was measured on "
        f"{_counted(footprint.count, 'example')}; the effective sample size is {size}."
    )
    _, written, *beware = summary(footprint, folder)
    return Answer(
        f"Where does {model or 'the model'} keep what it knows about {data or 'the data'}?",
        said,
        traces_grid(footprint, MOST_LAYERS),
        tuple(str(sentence) for sentence in beware),
        (str(written),),
    )


def traces_grid(footprint: Footprint, most: int | None = None) -> Grid:
    """The traces of all layers in the order of the model, or the largest of them."""
    traces = footprint.layer_traces()
    whole = math.fsum(traces.values())
    shown = list(traces) if most is None else sorted(traces, key=lambda layer: -traces[layer])[:most]
    rows = tuple((layer or WHOLE, f"{traces[layer]:.4g}", _percent(traces[layer], whole)) for layer in shown)
    title = "Trace by layer" + (f", the largest {most} of {len(traces)}" if len(shown) < len(traces) else "")
    return Grid(title, ("layer", "trace", "share"), rows, ((WHOLE, f"{whole:.4g}", _percent(whole, whole)),))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else DASH


def sources(footprints: Mapping[str, Footprint]) -> list[Block]:
    """Say which model and which data each footprint is of."""
    rows = tuple(
        (name, model or DASH, data or DASH)
        for name, (model, data) in ((name, _names(footprint)) for name, footprint in footprints.items())
    )
    if all((model, data) == (DASH, DASH) for _, model, data in rows):
        return []
    return [Grid("What they are of", ("footprint", "model", "data"), rows)]


def _names(footprint: Footprint) -> tuple[str, str]:
    model, data = dict(footprint.metadata.get("model") or {}), dict(footprint.metadata.get("data") or {})
    parts = (data.get("path") or data.get("id"), data.get("config"), data.get("split"))
    return str(model.get("name") or model.get("class") or ""), ", ".join(str(part) for part in parts if part)


def _of_what(footprint: Footprint) -> list[tuple[str, str]]:
    model, data = _names(footprint)
    facts = dict(footprint.metadata.get("model") or {})
    precision = facts.get("dtype") or facts.get("dtypes") or DASH
    in_all = dict(footprint.metadata.get("data") or {}).get("rows_in_all")
    return [
        *([("model", model)] if model else []),
        *([("data", data)] if data else []),
        ("precision", precision if isinstance(precision, str) else ", ".join(precision)),
        ("examples", str(footprint.count) + (f" of {in_all}" if in_all else "")),
    ]


def _distinct(footprint: Footprint) -> list[tuple[str, str]]:
    rows = footprint.rows
    if rows is None or rows.distinct == rows.total:
        return []
    return [("distinct rows", f"{rows.distinct}; {rows.copied} rows have copies in other folds")]


def _measured(footprint: Footprint) -> str:
    trainable = dict(footprint.metadata.get("model") or {}).get("trainable_parameters")
    if trainable is not None and trainable != len(footprint):
        return f"{len(footprint)} of {_counted(trainable, 'parameter')}"
    return _counted(len(footprint), "parameter")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _few(count: int, effective: float) -> str:
    if count < SMALLEST_EFFECTIVE:
        return f"Only {_counted(count, 'example')}, {effective:.1f} effective"
    return f"The trace is as unevenly spread as if {effective:.1f} of the {count} examples carried all of it"


def verification(report: Verification) -> list[Block]:
    """Describe a verification."""
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


def verified(report: Verification, model: str, data: str) -> Result:
    """Say whether rules agree with single-example passes, in every form."""
    found = _of_rules(report, model, data)
    record = {
        "answer": found.record(),
        "rows": report.rows,
        "tolerance": report.tolerance,
        "largest_error": report.largest_error,
        "routes": {name: asdict(route) for name, route in report.routes.items()},
    }
    text = json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    rows = ((name, route.route, route.rule, route.error, route.reason) for name, route in report.routes.items())
    return Result(found, verification(report), text, csv_text(("parameter", "route", "rule", "error", "reason"), rows))


def _of_rules(report: Verification, model: str, data: str) -> Answer:
    count = {kind: len(report.of(kind)) for kind in ("rule", "generic", "dormant")}
    found: dict[str, list[float]] = {}
    for route in report.routes.values():
        if route.route == "rule":
            found.setdefault(route.rule or DASH, []).append(route.error)
    rows = tuple((rule, str(len(errors)), f"{max(errors):.1e}") for rule, errors in found.items())
    said = (
        f"{count['rule']} of {len(report.routes)} parameters take a rule: the largest error is "
        f"{report.largest_error:.1e} of its largest gradient, and up to {report.tolerance:.0e} is accepted. "
        f"{count['generic']} are measured one example at a time, and {count['dormant']} were not used by these "
        f"{report.rows} rows."
    )
    refused = [f"{name}: {route.reason}" for name, route in report.routes.items() if route.route == "generic"]
    return Answer(
        f"Is the fast way of measuring {model} on {data} exact?",
        said,
        Grid("Rules", ("rule", "parameters", "largest error"), rows),
        (f"Measured one example at a time, exact but slower: {_some(refused)}.",) if refused else (),
        ("--verbose lists every parameter",),
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown}, … ({len(names)} in all)"
