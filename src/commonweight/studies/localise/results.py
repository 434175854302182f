"""What a localisation found: every score with its interval, shares of the gain, and verdicts at the primary fraction.

With s a score (accuracy, or mean log-likelihood), *base* the initialisation with the model's own head, and all scores
from the measuring half:

===========  ==================================================
gain         ``s(model) − s(base)``
sufficiency  ``(s(graft) − s(base)) / gain``
necessity    ``(s(model) − s(reset)) / gain``
===========  ==================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from commonweight.base.records import without_nan
from commonweight.base.resampled import Resampled
from commonweight.base.text import csv_text
from commonweight.interventions.measure import METRICS, STATISTICS, RowResampling, necessity, sufficiency
from commonweight.interventions.sets import Sets
from commonweight.studies.localise.cells import Cell, Scored
from commonweight.studies.localise.plan import LOCALISATION, LocaliseOptions, Places
from commonweight.studies.run.record import read_record
from commonweight.verdicts.localised import SetClaim, SetVerdict, judge_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from commonweight.interventions.measure import Metric, RowScores, Statistics
    from commonweight.studies.localise.cells import SetFacts, Way, Which

FORMAT, VERSION = "commonweight-localisation", 2
SAID = ("model", "data", "fraction", "way", "name", "which", "draws", "statistics", "metric")
"""What a number is of, in files."""

NOT_SCORED = "it was not scored"
EMPTY = "one of the two sets has no weight in a parameter that the other has"


@dataclass(frozen=True)
class Measured:
    """A network on a data set, in one metric; of null sets the mean over their draws."""

    model: str
    data: str
    fraction: float | None
    """Of the weights; None for the model and its base."""

    way: Way | Literal["model", "base"]
    name: str
    """Of the set."""

    which: Which | Literal[""]
    draws: int
    statistics: Statistics
    """Of batch norms. Networks without them are scored with the stored ones alone."""

    metric: Metric
    score: Resampled
    difference: Resampled
    """Of a graft ``s(graft) − s(base)``, of a reset ``s(model) − s(reset)``, of the model its gain."""

    share: Resampled
    """Sufficiency or necessity."""

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        numbers = {name: getattr(self, name).record() for name in ("score", "difference", "share")}
        return {**{name: getattr(self, name) for name in SAID}, **numbers}


@dataclass(frozen=True)
class Localisation:
    """Everything a localisation found."""

    options: LocaliseOptions
    settings: Mapping[str, Any]
    """All that the run was asked, as its record says it."""

    models: tuple[str, ...]
    rows: Mapping[str, int]
    """Rows of the measuring half, by data set."""

    measured: tuple[Measured, ...]
    facts: Mapping[str, Mapping[float, Mapping[str, SetFacts]]]
    """Model -> fraction -> set -> how many weights it has, and their ΣΔ²."""

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], Measured]:
        return {
            (each.model, each.data, each.fraction, each.way, each.name, each.which, each.statistics, each.metric): each
            for each in self.measured
        }

    @property
    def has_batch_norm(self) -> bool:
        """Tell whether a model has batch norm, so that networks are also scored with statistics re-estimated."""
        return any(each.statistics == "re-estimated" for each in self.measured)

    @property
    def names(self) -> Sets:
        """The names of the sets."""
        return Sets(dict.fromkeys(self.models))  # type: ignore[arg-type]

    def find(
        self,
        model: str,
        fraction: float | None,
        way: str,
        name: str = "",
        which: str = "",
        metric: Metric = "accuracy",
        data: str = "",
        statistics: Statistics = "stored",
    ) -> Measured | None:
        """Find what was measured, on the model's own data if none is named."""
        return self._places.get((model, data or model, fraction, way, name, which, statistics, metric))

    def score(self, model: str, way: str, name: str, which: str, metric: Metric) -> Resampled:
        """Find a score on the model's own data at the primary fraction; if it is not there, say why."""
        found = self.find(model, self.options.primary, way, name, which, metric)
        if found is not None:
            return found.score
        facts = self.facts[model][self.options.primary].get(name)
        unmatched = facts.unmatched if facts is not None else ""
        return Resampled.undefined((unmatched if which == "matched" else EMPTY) or NOT_SCORED)

    @cached_property
    def verdicts(self) -> tuple[SetVerdict, ...]:
        """Judge everything that is asked at the primary fraction, as one family."""
        names, claims = self.names, []
        for model in self.models:
            claims += [self._suffices(model), self._is_necessary(model)]
        if names.shared:
            claims += [self._shared(), *(self._specific(model, names.other(model)) for model in self.models)]
        return judge_sets(claims, self.options.least_share)

    def _suffices(self, model: str) -> SetClaim:
        by_set, by_null = (self.score(model, "graft", model, each, "accuracy") for each in ("set", "matched"))
        return SetClaim(
            "suffices", model, {"graft of the set − matched": by_set - by_null}, self._share(model, "graft")
        )

    def _is_necessary(self, model: str) -> SetClaim:
        return SetClaim(
            "is necessary", model, {"cost of the set − matched": self._cost(model, model)}, self._share(model, "reset")
        )

    def _shared(self) -> SetClaim:
        names = self.names
        needs = {}
        for model in self.models:
            needs[f"cost in {model} − matched"] = self._cost(model, names.shared)
            needs[f"cost in {model} − as large a part of {names.only(names.other(model))}"] = self._cost(
                model, names.shared, "part", names.shared, "part of the other"
            )
        return SetClaim("shared", names.shared, needs)

    def _specific(self, model: str, other: str) -> SetClaim:
        name = self.names.only(model)
        gain = self.find(other, None, "model", metric="log-likelihood")
        extra = self._cost(other, name, "set", name, "random")
        share = Resampled.undefined(NOT_SCORED) if gain is None else extra.share_of(gain.difference)
        needs = {
            f"cost in {model} − random": self._cost(model, name, "set", name, "random"),
            f"{self.options.equivalence:g} of the gain − cost in {other} beyond random": share.below(
                self.options.equivalence
            ),
        }
        return SetClaim("specific", name, needs, to=model)

    def _cost(
        self, model: str, name: str, which: Which = "set", null_name: str = "", null: Which = "matched"
    ) -> Resampled:
        """How much more it costs in log-likelihood to reset one set than another."""
        by_set = self.score(model, "reset", name, which, "log-likelihood")
        return self.score(model, "reset", null_name or name, null, "log-likelihood") - by_set

    def _share(self, model: str, way: Way) -> Resampled:
        metric: Metric = "accuracy" if way == "graft" else "log-likelihood"
        found = self.find(model, self.options.primary, way, model, "set", metric)
        return Resampled.undefined(NOT_SCORED) if found is None else found.share

    def to_json(self) -> str:
        """Write all of it; undefined numbers are null."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "plan": self.settings,
            "models": self.models,
            "measuring_rows": self.rows,
            "measured": [each.record() for each in self.measured],
            "sets": {
                model: {
                    f"{fraction:g}": {name: asdict(each) for name, each in found.items()}
                    for fraction, found in of.items()
                }
                for model, of in self.facts.items()
            },
            "verdicts": [each.record() for each in self.verdicts],
        }
        return json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Write every number, a row each; undefined is an empty field."""
        rows = []
        for each in self.measured:
            record = each.record()
            for quantity in ("score", "difference", "share"):
                numbers = [record[quantity][key] for key in ("value", "low", "high")]
                rows.append([*(record[key] for key in SAID), quantity, *numbers])
        return csv_text([*SAID, "quantity", "value", "low", "high"], rows)


def gather(
    options: LocaliseOptions,
    settings: Mapping[str, Any],
    models: Sequence[str],
    scored: Mapping[str, Mapping[float | None, Scored]],
) -> Localisation:
    """Average all scores over the rows, with paired bootstrap samples of each data set."""
    measured: list[Measured] = []
    for model in models:
        for data, units in scored[model][None].units.items():
            resampling = RowResampling(units, options.resamples, options.measure.seed)
            for statistics in STATISTICS:
                measured += _measured(model, data, scored[model], resampling, statistics)
    facts = {
        model: {fraction: scored[model][fraction].facts for fraction in sorted(options.fractions)} for model in models
    }
    sizes = {data: len(units) for of in scored.values() for data, units in of[None].units.items()}
    return Localisation(options, settings, tuple(models), sizes, tuple(measured), facts)


def read_localisation(run: Path) -> Localisation:
    """Gather a finished run again, from its folder alone."""
    record = read_record(run, LOCALISATION)
    options = LocaliseOptions.of_settings(record["asked"]["settings"])
    models = [*record["asked"]["models"]]
    places = Places(run)
    scored = {
        model: {fraction: Scored.load(places.scores(model, fraction)) for fraction in (None, *options.fractions)}
        for model in models
    }
    return gather(options, record["asked"]["settings"], models, scored)


def _measured(
    model: str,
    data: str,
    scored: Mapping[float | None, Scored],
    resampling: RowResampling,
    statistics: Statistics,
) -> list[Measured]:
    found, of = [], partial(Measured, model, data)
    scores = {fraction: each.under(statistics).get(data, {}) for fraction, each in scored.items()}
    if not scores[None]:
        return []
    for metric, attribute in METRICS.items():

        def mean(scores: Sequence[RowScores], attribute: str = attribute) -> Resampled:
            values = np.stack([getattr(each, attribute) for each in scores])
            return resampling.mean(values[0] if len(values) == 1 else values)

        whole, base = (mean([scores[None][key]]) for key in ("model", "base"))
        gain, nothing = whole - base, base - base
        found.append(of(None, "model", "", "", 1, statistics, metric, whole, gain, gain.share_of(gain)))
        found.append(of(None, "base", "", "", 1, statistics, metric, base, nothing, nothing.share_of(gain)))
        for fraction in sorted(each for each in scored if each is not None):
            cells = scores[fraction]
            for (way, name, which), group in groupby(sorted(map(Cell.of_key, cells)), key=lambda cell: cell[:3]):
                draws = [cells[cell.key] for cell in group]
                score = mean(draws)
                difference, share = (
                    (score - base, sufficiency(score, base, whole))
                    if way == "graft"
                    else (whole - score, necessity(score, base, whole))
                )
                numbers = score, difference, share
                found.append(of(fraction, way, name, which, len(draws), statistics, metric, *numbers))
    return found
