"""Verdicts: what a number with its interval says, or that it does not say it, and what that took.

A contrast of two overlaps shares more, shares less, or inconclusive. One overlap is above its null, not above it, or
inconclusive: alone it never says how much is shared. :mod:`commonweight.verdicts.needs` lists what each verdict takes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from commonweight.base.errors import UsageError, check_kind
from commonweight.base.estimate import LEVEL, Estimate
from commonweight.base.text import number
from commonweight.overlaps.table.layout import FEW_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.estimate import Over

MORE: Literal["shares more"] = "shares more"
LESS: Literal["shares less"] = "shares less"
INCONCLUSIVE: Literal["inconclusive"] = "inconclusive"
ABOVE: Literal["above its null"] = "above its null"
NOT_ABOVE: Literal["not above its null"] = "not above its null"
Answer = Literal["shares more", "shares less", "inconclusive", "above its null", "not above its null"]

SMALLEST_EFFECTIVE = FEW_EXAMPLES
"""Below this many effective sample size in a Fisher, an interval over folds can be too narrow: docs/reading.md."""

ROUNDING = 1e-9
"""Sums in double precision differ by less: an interval whose end is no farther from 0 than this holds 0."""

STORED = 1e-4
"""The same of Fishers, whose folds lie on disk in few digits.

Folds may be written in bfloat16, which moves the root of an entry by up to 2^-9 of it, about 1.1e-3 root mean square.
Over K folds of N weights of about equal size that averages out to ``1.1e-3 / sqrt(K N)``: 1e-4 for 16 weights in 8
folds. Measured on Fishers equal but for a factor, against a third: up to 4e-4 for 2 weights, 1.1e-4 for 30, 1.4e-5
for 3000 (reproductions/safeguards.py). Intervals include it, since it differs from fold to fold, and so about one in
20 excludes 0 by it alone.
"""

COPIES = 1e-12
"""Replicates that differ by less than this, relative to their size, differ by rounding only."""

OVER: Mapping[Over, str] = MappingProxyType({
    "folds": "over folds: about other examples of the same trained models, not about other trainings",
    "seeds": "over seeds: about other trainings",
})


@dataclass(frozen=True)
class Need:
    """One thing that a verdict took."""

    name: str
    """As in :data:`~commonweight.verdicts.needs.NEEDS`; ``shuffles`` of a permutation null."""

    met: bool
    found: str
    """What was found, in words and numbers."""


@dataclass(frozen=True)
class Verdict:
    """What an estimate says."""

    answer: Answer
    reason: str
    """Why: what was lacking, the number with its interval, and what the interval is over."""

    estimate: Estimate
    needs: tuple[Need, ...]
    """Everything that was asked for, met or not."""

    controls: Mapping[str, str | Estimate] = field(default_factory=dict)
    """What to read beside it; they decided nothing."""

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}"

    @property
    def brief(self) -> str:
        """The reason without what its interval is over, for a table that says so once."""
        return self.reason.replace(f", {OVER[self.estimate.over]}", "")

    @property
    def lacking(self) -> tuple[Need, ...]:
        """The needs that were not met."""
        return tuple(need for need in self.needs if not need.met)

    def asking(self, needs: Sequence[Need], beware: Sequence[str] = ()) -> Verdict:
        """Ask for more.

        Args:
            needs: What else was asked for; without any of it the answer is ``inconclusive``.
            beware: What else to read beside the answer; it decides nothing.

        Returns:
            The verdict with these needs first, what of them is lacking at the head of its reason, and what to beware of
            at its end.

        Example:
            >>> found = null_verdict(Estimate.over_seeds([0.2, 0.3]), aligned=True, effective_sample_size=None)
            >>> found.asking([Need("same Fisher type", False, "Fisher types differ")]).answer
            'inconclusive'
        """
        lacking = [need.found for need in needs if not need.met]
        also = [f"also: {'; '.join(beware)}"] if beware else []
        return replace(
            self,
            answer=INCONCLUSIVE if lacking else self.answer,
            reason="; ".join([*lacking, self.reason, *also]),
            needs=(*needs, *self.needs),
        )


def contrast_verdict(
    difference: Estimate,
    *,
    same_rows: bool,
    aligned: bool | None,
    noise_taken_out: bool | None,
    effective_sample_size: Collection[float] | None,
    controls: Mapping[str, str | Estimate] | None = None,
) -> Verdict:
    """Say whether one pair shares more than another.

    Args:
        difference: Overlap of the first pair less that of the second, with replicates in common, as
            :meth:`~commonweight.overlaps.table.table.OverlapTable.contrast` gives it or by subtracting two estimates.
        same_rows: Whether both sides were measured on the same source rows.
        aligned: Whether the models of each overlap have a shared initialisation; None where that is unclear or not
            measured.
        noise_taken_out: Whether both overlaps are corrected ones. False for raw ones of Fishers: the
            noise of finite samples lowers them, the noisier the Fishers the more, so that two raw overlaps of
            different data or models can differ by noise alone, in every training. None for masks and activities, of
            which it is not asked.
        effective_sample_size: Of every Fisher behind it, nan where not measured; None for masks and activities, of
            which they are not asked.
        controls: What to show beside it, as words or numbers.

    Returns:
        ``shares more`` if all that it asks for is met and the difference is positive, ``shares less`` if it is
        negative, else ``inconclusive``.

    Raises:
        UsageError: If the difference is no estimate, ``same_rows``, ``aligned`` or ``noise_taken_out`` is no bool, or
            there is no effective example count where some are expected.

    Example:
        >>> shared, unshared = Estimate.over_seeds([0.80, 0.90, 0.85]), Estimate.over_seeds([0.70, 0.80, 0.74])
        >>> asked = {"same_rows": True, "aligned": True, "effective_sample_size": [85.0, 60.2]}
        >>> print(contrast_verdict(shared - unshared, noise_taken_out=True, **asked))
        shares more: 0.1033 [0.0890, 0.1177] (95 %, 3 seeds), over seeds: about other trainings
        >>> print(contrast_verdict(shared - unshared, noise_taken_out=False, **asked).answer)
        inconclusive
    """
    checked = _asked(difference, effective_sample_size)
    same_rows, aligned = _flag("same_rows", same_rows), _aligned(aligned)
    start = {
        True: "shared initialisation",
        False: "no shared initialisation",
        None: "shared initialisation unclear or not measured",
    }
    needs = (
        Need("same rows", same_rows, "the same source rows" if same_rows else "the two sides are of different rows"),
        Need("shared initialisation", aligned is True, start[aligned]),
        *_noise(noise_taken_out),
        *checked,
        _excludes_0(difference, effective_sample_size, "its interval holds 0"),
    )
    if all(need.met for need in needs):
        answer: Answer = MORE if difference.value > 0 else LESS
    else:
        answer = INCONCLUSIVE
    return Verdict(answer, _reason(difference, needs), difference, needs, controls or {})


def null_verdict(
    overlap_minus_null: Estimate,
    *,
    aligned: bool | None,
    effective_sample_size: Collection[float] | None,
    controls: Mapping[str, str | Estimate] | None = None,
) -> Verdict:
    """Say whether one overlap is above its null: no more can be said of an overlap alone.

    Args:
        overlap_minus_null: As ``table.estimate("above_null", a, b)`` gives it; of masks, the overlap corrected for
            chance, over seeds.
        aligned: Whether the two models have a shared initialisation; None where that is unclear or not measured.
            Without one the answer stands, and the reason says that it is no sharing: networks of one architecture
            overlap above permuted ones on the same inputs.
        effective_sample_size: Of both Fishers, nan where not measured; None for masks and activities, of which they are
            not asked.
        controls: What to show beside it, as words or numbers.

    Returns:
        ``above its null`` if the interval lies above 0, ``not above its null`` if it does not, ``inconclusive`` without
        what it asks for.

    Raises:
        UsageError: If the difference is no estimate, ``aligned`` is no bool, or there is no effective example count
            where some are expected.

    Example:
        >>> print(null_verdict(Estimate.over_seeds([0.02, -0.01, 0.01]), aligned=True, effective_sample_size=None))
        not above its null: its interval does not lie above 0; 0.0067 [-0.0313, 0.0446] (95 %, 3 seeds), over seeds:
        about other trainings
    """
    asked = _asked(overlap_minus_null, effective_sample_size)
    aligned = _aligned(aligned)
    above = _excludes_0(overlap_minus_null, effective_sample_size, "its interval does not lie above 0", below=False)
    needs = (*asked, above)
    answer: Answer = INCONCLUSIVE
    if all(need.met for need in asked):
        answer = ABOVE if above.met else NOT_ABOVE
    caution = {
        True: (),
        False: ("no shared initialisation, so this is no sharing",),
        None: ("shared initialisation unclear or not measured",),
    }
    return Verdict(
        answer, _reason(overlap_minus_null, needs, caution[aligned]), overlap_minus_null, needs, controls or {}
    )


def permutation_verdict(value: float, null: float, *, above: bool, p: float = math.nan) -> Verdict:
    """Say whether one similarity is above the null of its own shuffles.

    Args:
        value: The similarity; nan is undefined.
        null: What 95 % of shuffles stay under.
        above: Whether the similarity is better than its null.
        p: The share of shuffles that reach it, where there is one.

    Returns:
        ``above its null`` or ``not above its null``; ``inconclusive`` where the similarity is undefined. The estimate
        has no interval: what differs between shuffles is neither the examples nor the training.

    Example:
        >>> print(permutation_verdict(0.90, 0.92, above=False))
        not above its null: similarity 0.9000, null 0.9200
    """
    difference = Estimate(value - null, (), "folds")
    if math.isnan(value):
        return Verdict(INCONCLUSIVE, "the similarity is undefined", difference, (Need("shuffles", False, "undefined"),))
    found = f"similarity {number(value)}, null {number(null)}" + ("" if math.isnan(p) else f", p {p:.3f}")
    return Verdict(ABOVE if above else NOT_ABOVE, found, difference, (Need("shuffles", above, found),))


def by_chance(looked_at: int, of: Literal["contrasts", "nulls"]) -> str:
    """Say how many of several verdicts to expect where there is nothing: intervals are not widened for their number.

    Args:
        looked_at: How many intervals.
        of: ``contrasts`` exclude 0 by chance on either side, ``nulls`` count above only.

    Returns:
        One sentence.

    Example:
        >>> by_chance(12, "contrasts")
        'Intervals are at 95 % each and 12 were looked at: where nothing differs, about 0.6 would exclude 0 by chance.'
    """
    share = (1 - LEVEL) / (1 if of == "contrasts" else 2)
    rest = "nothing differs" if of == "contrasts" else "nothing is above its null"
    would = "exclude 0" if of == "contrasts" else "seem to be"
    return (
        f"Intervals are at {100 * LEVEL:.0f} % each and {looked_at} were looked at: where {rest}, about "
        f"{looked_at * share:.1f} would {would} by chance."
    )


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _aligned(value: object) -> bool | None:
    return None if value is None else _flag("aligned (None where it is unclear or not measured)", value)


def _noise(taken_out: object) -> tuple[Need, ...]:
    if taken_out is None:
        return ()
    met = _flag("noise_taken_out (None for masks and activities)", taken_out)
    raw = "raw overlaps, whose noise differs between the two sides: take corrected ones, measured with folds"
    return (Need("noise taken out", met, "the noise is taken out of both overlaps" if met else raw),)


def _asked(estimate: Estimate, effective: Collection[float] | None) -> tuple[Need, ...]:
    """What every verdict asks of the estimate itself: effective sample size, where there are any, and an interval."""
    if not isinstance(estimate, Estimate):
        raise UsageError(f"expected an Estimate, such as table.contrast(...) gives, got {type(estimate).__name__}")
    missing = _no_interval(estimate) or _copies(estimate)
    interval = Need("interval", missing is None, missing or str(estimate))
    if effective is None:
        return (interval,)
    check_kind("effective_sample_size", effective, Collection, "give those of every Fisher in a list")
    if not len(effective):
        raise UsageError(
            "effective_sample_size is empty: give those of every Fisher behind the estimate, nan where not "
            "measured, or "
            "None for masks and activities"
        )
    if not all(map(math.isfinite, effective)):
        return (Need("effective sample size", met=False, found="effective sample size were not measured"), interval)
    least = min(effective)
    words = f"{math.floor(10 * least) / 10:.1f} effective sample size in the weakest Fisher"
    if least < SMALLEST_EFFECTIVE:
        words += f", and it takes {SMALLEST_EFFECTIVE}"
    return (Need("effective sample size", least >= SMALLEST_EFFECTIVE, words), interval)


def _no_interval(estimate: Estimate) -> str | None:
    return "the value is infinite" if math.isinf(estimate.value) else estimate.missing


def _copies(estimate: Estimate) -> str | None:
    """Say that replicates are all one number other than 0, as those of a copied seed are: nothing was sampled."""
    least, most = min(estimate.replicates), max(estimate.replicates)
    size = max(abs(estimate.value), abs(least), abs(most))
    if size <= ROUNDING or most - least > COPIES * size:
        return None
    return "the replicates are all equal: copies?"


def _excludes_0(estimate: Estimate, effective: Collection[float] | None, otherwise: str, *, below: bool = True) -> Need:
    """Whether the interval lies above 0, or below it where that counts, by more than rounding."""
    if _no_interval(estimate):
        return Need("excludes 0", met=False, found="there is no interval")
    end = max(estimate.low, -estimate.high if below else -math.inf)
    rounding = ROUNDING if effective is None else STORED
    if ROUNDING < end <= rounding:
        otherwise = f"its interval comes within {rounding:g} of 0, which can be rounding"
    return Need("excludes 0", end > rounding, "its interval excludes 0" if end > rounding else otherwise)


def _reason(estimate: Estimate, needs: Sequence[Need], beware: Sequence[str] = ()) -> str:
    """What is lacking and what to beware of, then the number, then what its interval is over."""
    lacking = [need.found for need in needs if not need.met]
    if _no_interval(estimate) is None:
        return "; ".join([*lacking, *beware, f"{estimate}, {OVER[estimate.over]}"])
    said = [*lacking[:-1], *beware]  # without an interval, not what it would have to exclude
    return "; ".join(said if not math.isfinite(estimate.value) else [*said, f"the value is {number(estimate.value)}"])
