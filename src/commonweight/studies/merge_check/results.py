"""What a merge check found: every merge less its parents, and the layers that are confirmed to be in the way.

For a merge of some models, with s the mean log-likelihood (or the accuracy) on a data set, the *change* on this data
set is ``s(merge with the head of the data set's model) − s(this model)``. Merges are ranked by the mean of it over the
data sets of their models. All of it is from the measuring half; λ, the best merge and candidate layers are chosen on
the other one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from commonweight.base.records import without_nan
from commonweight.base.resampled import Resampled
from commonweight.base.seeds import keyed
from commonweight.base.text import csv_text
from commonweight.interventions.measure import METRICS, RowResampling
from commonweight.studies.localise.cells import Scored, is_scored
from commonweight.studies.merge_check.beside import Beside
from commonweight.studies.merge_check.layers import Restored, candidates, mean_change
from commonweight.studies.merge_check.plan import MERGE_CHECK, MergeCheckOptions, Places, groups
from commonweight.studies.run.record import read_record
from commonweight.verdicts.localised import SetClaim, SetVerdict, judge_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from commonweight.interventions.measure import Metric
    from commonweight.studies.merge_check.plan import Members, Trial

FORMAT, VERSION = "commonweight-merge-check", 1
PARENT = "parent"
"""Key of the parents' own scores."""

CHOOSING, MEASURING = "choosing", "measuring"
TOO_LARGE = "fewer weights lie outside the layer than in it"
LUCK = 4
"""Keys the luck of the draw apart from the draws."""


@dataclass(frozen=True)
class Merge:
    """One merge, less its parents."""

    members: Members
    trial: Trial
    chosen_by: float
    """Mean change of the log-likelihood on the choosing half."""

    changes: Mapping[Metric, Mapping[str, Resampled]]
    """Metric -> data set -> change on the measuring half."""

    @property
    def name(self) -> str:
        """What is merged, and how."""
        return f"{' + '.join(self.members)}: {self.trial.label}"

    def mean(self, metric: Metric = "log-likelihood") -> Resampled:
        """Give the mean over the data sets."""
        return mean_over(self.changes[metric].values())

    @property
    def worst(self) -> str:
        """The data set that loses most in log-likelihood."""
        changes = self.changes["log-likelihood"]
        return min(changes, key=lambda data: changes[data].value)


class Layer(NamedTuple):
    """A layer of the best merge that was chosen to be confirmed."""

    asked: Restored
    gain: Resampled
    """Mean change of the log-likelihood over all data sets, where it gets the parent's weights back."""

    beyond_random: Resampled
    """The same less that of random sets of equal size outside the layer."""

    @property
    def claim(self) -> SetClaim:
        """What has to lie above 0."""
        return SetClaim(
            "conflicts", self.asked.layer, {"restored − merge": self.gain, "restored − random": self.beyond_random}
        )


@dataclass(frozen=True)
class MergeCheck:
    """Everything a merge check found."""

    options: MergeCheckOptions
    settings: Mapping[str, Any]
    """All that the run was asked, as its record says it."""

    rows: Mapping[str, int]
    """Rows of the measuring half, by data set, which is named after its model."""

    parents: Mapping[Metric, Mapping[str, Resampled]]
    """Metric -> data set -> score of its own model."""

    merges: tuple[Merge, ...]
    """Every trial, those that lose least first."""

    layers: tuple[Layer, ...]
    beside: Beside

    @property
    def models(self) -> tuple[str, ...]:
        """Names, in their order."""
        return tuple(self.rows)

    @property
    def best(self) -> Merge:
        """The merge of all models that is best on the choosing half."""
        return best_of(self.merges, self.models)

    @property
    def best_pair(self) -> Merge:
        """The merge of two models that is best on the choosing half."""
        return max((each for each in self.merges if len(each.members) == 2), key=lambda each: each.chosen_by)

    @property
    def shortlist(self) -> list[Merge]:
        """Of each method the merge that is best on the choosing half, for each group of models."""
        found = []
        for members in groups(self.models):
            for method in dict.fromkeys(each.method for each in self.options.trials):
                found.append(best_of([each for each in self.merges if each.trial.method == method], members))
        return sorted(found, key=_by_rank)

    @property
    def verdicts(self) -> tuple[SetVerdict, ...]:
        """Judge all candidate layers as one family."""
        return judge_sets([each.claim for each in self.layers])

    @property
    def conflicting(self) -> list[Layer]:
        """The layers that are confirmed."""
        return [layer for layer, found in zip(self.layers, self.verdicts, strict=True) if found.outcome == "conflicts"]

    def find(self, members: Iterable[str], method: str, scale: float | None = None) -> Merge:
        """Find a merge.

        Args:
            members: The models, in any order.
            method: ``average``, ``task_arithmetic`` or ``fisher``.
            scale: λ of task arithmetic.

        Returns:
            It.

        Raises:
            KeyError: If it was not tried.
        """
        wanted = tuple(sorted(members)), method, scale
        for each in self.merges:
            if (each.members, each.trial.method, each.trial.scale) == wanted:
                return each
        raise KeyError(wanted)

    def to_json(self) -> str:
        """Write all of it; undefined numbers are null."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "plan": self.settings,
            "models": self.models,
            "measuring_rows": self.rows,
            "parents": {
                metric: {data: each.record() for data, each in found.items()} for metric, found in self.parents.items()
            },
            "best": self.best.name,
            "merges": [
                {
                    "models": each.members,
                    "method": each.trial.method,
                    "scale": each.trial.scale,
                    "worst": each.worst,
                    "changes": {
                        metric: {"mean": each.mean(metric).record()}
                        | {data: change.record() for data, change in changes.items()}
                        for metric, changes in each.changes.items()
                    },
                }
                for each in self.merges
            ],
            "pairs": [asdict(each) for each in self.beside.pairs],
            "layers": [
                {
                    "layer": layer.asked.layer,
                    "restored_to": layer.asked.parent,
                    "outcome": verdict.outcome,
                    "p": verdict.p,
                    "family": verdict.family,
                    "reason": verdict.reason,
                    "needs": {name: need.record() for name, need in layer.claim.needs.items()},
                }
                for layer, verdict in zip(self.layers, self.verdicts, strict=True)
            ],
        }
        return json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Write the change of every merge on every data set, a row each; undefined is an empty field."""
        rows = [
            [
                "+".join(each.members),
                each.trial.method,
                each.trial.scale,
                data,
                metric,
                change.value,
                change.low,
                change.high,
            ]
            for each in self.merges
            for metric, changes in each.changes.items()
            for data, change in (("mean", each.mean(metric)), *changes.items())
        ]
        return csv_text(["models", "method", "scale", "data", "metric", "value", "low", "high"], rows)


def best_of(merges: Iterable[Merge], members: Members) -> Merge:
    """Choose the merge of some models that is best on the choosing half."""
    return max((each for each in merges if each.members == members), key=lambda each: each.chosen_by)


def _by_rank(merge: Merge) -> float:
    return -merge.mean().value


def mean_over(values: Iterable[Resampled]) -> Resampled:
    """Average over data sets; undefined where one of them is."""
    found = list(values)
    if reason := next((each.reason for each in found if each.reason), ""):
        return Resampled.undefined(reason)
    return Resampled(
        float(np.mean([each.value for each in found])), np.mean([each.replicates for each in found], axis=0)
    )


@dataclass(frozen=True)
class AllScores:
    """Scores of both halves, by half."""

    parents: Mapping[str, Scored]
    merges: Mapping[str, Mapping[Members, Scored]]
    restored: Scored
    """On the choosing half, every layer of the best merge restored to every parent."""

    confirmed: Scored | None
    """On the measuring half, the candidates and their random sets; None where there are none."""


def gather(
    options: MergeCheckOptions,
    settings: Mapping[str, Any],
    scored: AllScores,
    beside: Beside,
) -> MergeCheck:
    """Average all scores over the rows, with paired bootstrap samples of each data set."""
    own = scored.parents[MEASURING]
    resampling = {
        data: RowResampling(units, options.resamples, options.measure.seed) for data, units in own.units.items()
    }
    parents = {
        metric: {data: resampling[data].mean(getattr(cells[PARENT], name)) for data, cells in own.scores.items()}
        for metric, name in METRICS.items()
    }
    merges = []
    for members, found in scored.merges[MEASURING].items():
        chosen_by = scored.merges[CHOOSING][members]
        for trial in options.trials:
            changes = {
                metric: {
                    data: resampling[data].mean(getattr(cells[trial.key], name)) - parents[metric][data]
                    for data, cells in found.scores.items()
                }
                for metric, name in METRICS.items()
            }
            by = mean_change(chosen_by, trial.key, scored.parents[CHOOSING], PARENT)
            merges.append(Merge(members, trial, by, changes))
    merges.sort(key=_by_rank)
    rows = {data: len(units) for data, units in own.units.items()}
    best = best_of(merges, tuple(rows))
    layers = _layers(options, scored, best, resampling)
    return MergeCheck(options, settings, rows, parents, tuple(merges), layers, beside)


def chosen_layers(scored: AllScores, best: Members, trial: Trial) -> list[Restored]:
    """Choose the layers that are confirmed."""
    keys = next(iter(scored.restored.scores.values()))
    every = [Restored(*key.split("/")) for key in keys]
    return candidates(every, scored.restored, scored.merges[CHOOSING][best], trial.key)


def _layers(
    options: MergeCheckOptions, scored: AllScores, best: Merge, resampling: Mapping[str, RowResampling]
) -> tuple[Layer, ...]:
    if scored.confirmed is None:
        return ()
    merge = scored.merges[MEASURING][best.members]
    found = []
    for one in chosen_layers(scored, best.members, best.trial):
        values = {
            data: cells[one.key].log_likelihood - merge.scores[data][best.trial.key].log_likelihood
            for data, cells in scored.confirmed.scores.items()
        }
        gain = mean_over(resampling[data].mean(each) for data, each in values.items())
        found.append(Layer(one, gain, gain - _random(options, scored.confirmed, merge, best, one, resampling)))
    return tuple(found)


def _random(
    options: MergeCheckOptions,
    confirmed: Scored,
    merge: Scored,
    best: Merge,
    one: Restored,
    resampling: Mapping[str, RowResampling],
) -> Resampled:
    """Give the gain of one more random set: the mean over the draws, with the luck of a draw, all data sets alike."""
    if any(one.draw_key(0) not in cells for cells in confirmed.scores.values()):
        return Resampled.undefined(TOO_LARGE)
    values = {
        data: np.stack([
            cells[one.draw_key(draw)].log_likelihood - merge.scores[data][best.trial.key].log_likelihood
            for draw in range(options.draws)
        ])
        for data, cells in confirmed.scores.items()
    }
    mean = mean_over(resampling[data].mean(each.mean(0)) for data, each in values.items())
    of_draws = np.mean([each.mean(1) for each in values.values()], axis=0)
    spread = of_draws.std(ddof=1) * np.sqrt(1 + 1 / len(of_draws))
    luck = np.random.default_rng(keyed(options.measure.seed, LUCK)).standard_t(len(of_draws) - 1, options.resamples)
    return Resampled(mean.value, mean.replicates + luck * spread)


def read_merge_check(run: Path) -> MergeCheck:
    """Gather a finished run again, from its folder alone."""
    record = read_record(run, MERGE_CHECK)
    options = MergeCheckOptions.of_settings(record["asked"]["settings"])
    places = Places(run)
    every = groups([*record["asked"]["models"]])
    halves = (CHOOSING, MEASURING)
    confirmed = places.scores(MEASURING, "layers")
    scored = AllScores(
        {half: Scored.load(places.scores(half, "parents")) for half in halves},
        {half: {each: Scored.load(places.scores(half, "&".join(each))) for each in every} for half in halves},
        Scored.load(places.scores(CHOOSING, "layers")),
        Scored.load(confirmed) if is_scored(confirmed) else None,
    )
    return gather(options, record["asked"]["settings"], scored, Beside.load(places))
