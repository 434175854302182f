"""Localisations of several trainings: what holds of models trained like these, not of these models alone.

Each run tests the models of one training seed, and its intervals are over rows. Here every number of a run is one
value, and intervals are Student's t over the runs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.records import without_nan
from commonweight.base.text import DASH, Grid, csv_text, number
from commonweight.report.answer import ANSWER, Answer, Result
from commonweight.studies.localise.answer import MAPS, TRAINING_ROWS, verdict_grid
from commonweight.studies.localise.plan import LOCALISATION
from commonweight.studies.localise.results import SAID, read_localisation
from commonweight.studies.run.record import differences, read_record, refuse_another, same_identity
from commonweight.verdicts.localised import SetClaim, SetVerdict, judge_sets, which_hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commonweight.base.text import Block
    from commonweight.studies.localise.results import Localisation, Measured
    from commonweight.verdicts.localised import Judged

FORMAT, VERSION = "commonweight-localisation-over-seeds", 1
FEWEST = 3
"""Trainings; with fewer nothing is said of other trainings."""

NUMBERS = ("score", "difference", "share")


@dataclass(frozen=True)
class SeedMean:
    """A mean over trainings, with its t interval."""

    values: tuple[float, ...]
    """One per training."""

    reason: str = ""
    """Why it is undefined; empty where it is not."""

    @classmethod
    def of(cls, numbers: Sequence[Judged]) -> SeedMean:
        """Take one number from each training; undefined where one of them is."""
        undefined = {seed: each.reason for seed, each in enumerate(numbers, 1) if each.reason}
        reason = next((f"in training {seed} {why}" for seed, why in undefined.items()), "")
        return cls(tuple(each.value for each in numbers), reason)

    @cached_property
    def _estimate(self) -> Estimate:
        return Estimate.over_seeds(self.values)

    @property
    def value(self) -> float:
        """The mean; nan where it is undefined."""
        return self._estimate.value

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; nan where it is undefined."""
        return self._estimate.low

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval; nan where it is undefined."""
        return self._estimate.high

    def p_above_0(self) -> float:
        """Test whether it is above 0: two-sided p of the t test, 1 where it is not above 0 or is undefined."""
        from scipy.special import stdtr  # type: ignore[import-untyped,unused-ignore]

        if self.reason or not self.value > 0:
            return 1.0
        error = self._estimate.standard_error
        return float(2 * stdtr(self._estimate.degrees, -self.value / error)) if error else 0.0

    def short(self, decimals: int = 3) -> str:
        """Write it with its interval, for a table; undefined is a dash."""
        if self.reason:
            return DASH
        return f"{number(self.value, decimals)} [{number(self.low, decimals)}, {number(self.high, decimals)}]"

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "of_trainings": list(self.values),
            "undefined": self.reason or None,
        }


@dataclass(frozen=True)
class SeedLocalisation:
    """What localisations of several trainings found together."""

    trainings: tuple[Localisation, ...]

    @cached_property
    def verdicts(self) -> tuple[SetVerdict, ...]:
        """Judge every claim at the primary fraction by its numbers over trainings, as one family."""
        claims = []
        for each in zip(*([verdict.asked for verdict in one.verdicts] for one in self.trainings), strict=True):
            needs = {name: SeedMean.of([claim.needs[name] for claim in each]) for name in each[0].needs}
            shares = [claim.share for claim in each if claim.share is not None]
            share = SeedMean.of(shares) if shares else None
            claims.append(SetClaim(each[0].claim, each[0].subject, needs, share, each[0].to))
        return judge_sets(claims, self.trainings[0].options.least_share)

    def measured(self) -> Iterator[tuple[Measured, dict[str, SeedMean]]]:
        """Go through what was measured in every training: the first one's, and each number over trainings."""
        for first in self.trainings[0].measured:
            where = first.model, first.fraction, first.way, first.name, first.which, first.metric
            found = [one.find(*where, data=first.data, statistics=first.statistics) for one in self.trainings]
            every = [each for each in found if each is not None]
            if len(every) == len(found):
                yield first, {name: SeedMean.of([getattr(each, name) for each in every]) for name in NUMBERS}

    def to_json(self) -> str:
        """Write all of it; undefined numbers are null."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "plan": self.trainings[0].settings,
            "models": self.trainings[0].models,
            "trainings": len(self.trainings),
            "measured": [
                {name: getattr(first, name) for name in SAID} | {name: each.record() for name, each in numbers.items()}
                for first, numbers in self.measured()
            ],
            "verdicts": [each.record() | {"sentence": each.sentence} for each in self.verdicts],
        }
        return json.dumps(without_nan(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Write every number, a row each; undefined is an empty field."""
        rows = (
            [*(getattr(first, name) for name in SAID), quantity, each.value, each.low, each.high]
            for first, numbers in self.measured()
            for quantity, each in numbers.items()
        )
        return csv_text([*SAID, "quantity", "value", "low", "high"], rows)

    def result(self) -> Result:
        """Answer in one screen and in full."""
        first, count = self.trainings[0], len(self.trainings)
        named = " and ".join(first.models)
        question = (
            f"Do the weights that the {MAPS[first.options.map]} names hold what models trained like {named} learn?"
        )
        share = f"{100 * first.options.primary:g} % of the weights"
        said = f"Over {count} trainings, with {share} in a set, {which_hold(self.verdicts)}"
        screen = Grid(
            "What has to lie above 0, mean over trainings",
            ("set", "claim", "least of them [95 %]", "share [95 %]"),
            tuple(_row(each) for each in self.verdicts),
        )
        found = Answer(question, said, screen, (TRAINING_ROWS,))
        text = json.dumps({"answer": found.record(), **json.loads(self.to_json())}, indent=1, ensure_ascii=False)
        blocks: list[Block] = [
            verdict_grid(self.verdicts, first.options.primary),
            f"Intervals are Student's t over {count} trainings, each with models, sets and null sets of its own.",
            self._grid(),
        ]
        return Result(found, blocks, f"{text}\n", self.to_csv())

    def _grid(self) -> Grid:
        rows = tuple(
            (
                f"{each.model} on {each.data}: {each.way} {each.name}".rstrip(),
                each.which or DASH,
                DASH if each.fraction is None else f"{each.fraction:g}",
                each.metric,
                *(numbers[name].short(2 if name == "share" else 3) for name in NUMBERS),
            )
            for each, numbers in self.measured()
            if each.statistics == "stored"
        )
        header = ("network", "of", "fraction", "metric", *NUMBERS)
        return Grid(f"Every network, mean over {len(self.trainings)} trainings", header, rows)


def _row(verdict: SetVerdict) -> tuple[str, ...]:
    claim = verdict.asked
    least = min(claim.needs.values(), key=lambda need: math.inf if need.reason else need.low)
    share = DASH if claim.share is None else claim.share.short(2)
    return claim.subject, verdict.outcome, least.short(), share


def localise_over_seeds(runs: Sequence[str | Path]) -> SeedLocalisation:
    """Combine localisations of several trainings of the same models.

    A claim holds of models trained like these where every number that has to lie above 0 does so by its t interval over
    the trainings, after Holm's correction over the claims; a set suffices, or is necessary, whole where the lower end
    of its share is at least the run's ``least_share``.

    Args:
        runs: Folders of finished localisations, one per training seed, at least three: the same names of models, the
            same data and options, and other weights in each.

    Returns:
        Verdicts, and every number with its interval over trainings.

    Raises:
        UsageError: If there are fewer than three runs, one is not finished or asks something else, or two hold the same
            training of a model.

    Example:
        >>> localise_over_seeds(["runs/seed-0", "runs/seed-1", "runs/seed-2"])  # doctest: +SKIP
    """
    if len(runs) < FEWEST:
        raise UsageError(
            f"expected runs of at least {FEWEST} training seeds, got {len(runs)}: with fewer, the answer of each run "
            "speaks of its own models; give more"
        )
    every: list[tuple[Path, Mapping[str, Any]]] = []
    for run in map(Path, runs):
        if not (run / ANSWER).is_file():
            raise UsageError(f"{run} holds no finished localisation: give folders that commonweight localise wrote")
        asked = read_record(run, LOCALISATION)["asked"]
        place, first = every[0] if every else (run, asked)
        same = [{"settings": each["settings"], "data": each["data"]} for each in (first, asked)]
        refuse_another(run, differences(*same), "Give runs of one question")
        if list(first["models"]) != list(asked["models"]):
            names, others = (", ".join(each["models"]) for each in (asked, first))
            raise UsageError(f"{run} is of the models {names}, and {place} of {others}; give equal names")
        for other, former in every:
            for name, identity in asked["models"].items():
                if same_identity(former["models"][name], identity):
                    raise UsageError(
                        f"{other} and {run} hold one and the same training of {name}: give a run for each training seed"
                    )
        every.append((run, asked))
    return SeedLocalisation(tuple(read_localisation(run) for run, _ in every))
