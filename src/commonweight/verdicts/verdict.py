"""Verdicts: what an estimate says, or that it does not say it, and why.

A contrast of two overlaps shares more, shares less, or is inconclusive. One overlap is above its null, not above it, or
inconclusive: alone it never says how much is shared. :data:`~commonweight.verdicts.rules.NEEDS` lists what is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from commonweight.base.errors import UsageError, check_kind
from commonweight.base.estimate import Estimate
from commonweight.base.text import Grid, to_html
from commonweight.verdicts import words
from commonweight.verdicts.evidence import Evidence
from commonweight.verdicts.rules import (
    ABOVE,
    INCONCLUSIVE,
    LESS,
    MORE,
    NEEDS,
    NOT_ABOVE,
    NOT_ASKED,
    STANDS,
    Answer,
    Finding,
    Need,
)


@dataclass(frozen=True)
class Verdict:
    """What an estimate says.

    Example:
        >>> found = contrast_verdict(
        ...     Estimate.over_seeds([0.10, 0.11, 0.12]),
        ...     same_rows=False,
        ...     aligned=True,
        ...     noise_taken_out=True,
        ...     effective_sample_size=[85.0, 60.2],
        ... )
        >>> found.answer, [finding.code for finding in found.lacking]
        ('inconclusive', ['same rows'])
        >>> print(found.brief)
        the two sides have different source rows; 0.1100 [0.0852, 0.1348] (95 %, 3 seeds)
    """

    answer: Answer
    estimate: Estimate
    findings: tuple[Finding, ...]
    """Everything that was asked, met or not."""

    controls: Mapping[str, Estimate] = field(default_factory=dict)
    """The same contrast with a control in place of a model; they decide nothing."""

    @property
    def lacking(self) -> tuple[Finding, ...]:
        """What was not met and cost the answer."""
        return tuple(each for each in self.findings if not each.met and each.without != STANDS)

    @property
    def beware(self) -> tuple[Finding, ...]:
        """What was not met though the answer stands."""
        return tuple(each for each in self.findings if not each.met and each.without == STANDS)

    @property
    def reason(self) -> str:
        """Why: what is lacking, the number with its interval, what the interval is over, and what to beware of."""
        return words.reason(self.estimate, self.findings, over=True)

    @property
    def brief(self) -> str:
        """The reason without what its interval is over, for a table that says so once."""
        return words.reason(self.estimate, self.findings, over=False)

    @property
    def short(self) -> str:
        """The answer in a word or two, for a table of layers."""
        return words.short(self.answer, self.lacking)

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}"

    def _repr_html_(self) -> str:
        rows = tuple(
            (each.code, "yes" if each.met else "no", "" if each.met else words.sentence(each)) for each in self.findings
        )
        return to_html([f"{self}.", Grid("What was asked", ("need", "met", "what is wrong"), rows)])


def judge(evidence: Evidence) -> Verdict:
    """Ask everything that the table of needs lists."""
    asked = (_finding(need, evidence) for need in NEEDS)
    findings = tuple(finding for finding in asked if finding is not None)
    without = [finding.without for finding in findings if not finding.met]
    answer: Answer = ABOVE if evidence.single else MORE if evidence.estimate.value > 0 else LESS
    for weaker in (NOT_ABOVE, INCONCLUSIVE):
        answer = weaker if weaker in without else answer
    return Verdict(answer, evidence.estimate, findings, evidence.controls)


def _finding(need: Need, evidence: Evidence) -> Finding | None:
    without = need.single if evidence.single else need.contrast
    found = None if without == NOT_ASKED else need.check(evidence)
    return None if found is None else Finding(need.code, *found, without)


def contrast_verdict(
    difference: Estimate,
    *,
    same_rows: bool,
    aligned: bool | None,
    noise_taken_out: bool | None,
    effective_sample_size: Collection[float] | None,
) -> Verdict:
    """Say whether one pair shares more than another.

    Args:
        difference: Overlap of the first pair less that of the second, with replicates in common, as
            :meth:`~commonweight.overlaps.table.table.OverlapTable.contrast` gives it or by subtracting two estimates.
        same_rows: Whether both sides were measured on the same source rows.
        aligned: Whether the models of each overlap have a shared initialisation; None where that is unclear or not
            measured.
        noise_taken_out: Of Fishers, whether both overlaps are corrected ones. Noise lowers raw overlaps, and not both
            alike, over seeds as little as over folds. None for masks and activities, of which it is not asked.
        effective_sample_size: Of every Fisher behind both overlaps, nan where not measured; None for masks and
            activities, of which they are not asked.

    Returns:
        ``shares more`` or ``shares less`` if all is met and the interval excludes 0, else ``inconclusive``.

    Raises:
        UsageError: If the difference is no estimate, a flag is no bool, or there is no effective sample size where some
            are expected.

    Example:
        >>> shared, unshared = (Estimate.over_seeds(x) for x in ([0.80, 0.90, 0.85], [0.70, 0.80, 0.74]))
        >>> asked = {"same_rows": True, "aligned": True, "effective_sample_size": [85.0, 60.2]}
        >>> print(contrast_verdict(shared - unshared, noise_taken_out=True, **asked))
        shares more: 0.1033 [0.0890, 0.1177] (95 %, 3 seeds), over seeds: about other training runs
        >>> print(contrast_verdict(shared - unshared, noise_taken_out=False, **asked).answer)
        inconclusive
    """
    return judge(
        Evidence(
            estimate=_checked(difference),
            single=False,
            aligned=(_aligned(aligned),),
            effective_sample_size=_effective(effective_sample_size),
            same_rows=flag("same_rows", same_rows),
            noise_taken_out=None
            if noise_taken_out is None
            else flag("noise_taken_out (None for masks and activities)", noise_taken_out),
        )
    )


def null_verdict(
    overlap_minus_null: Estimate, *, aligned: bool | None, effective_sample_size: Collection[float] | None
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

    Returns:
        ``above its null`` if the interval lies above 0, ``not above its null`` if it does not, ``inconclusive`` without
        what it asks for.

    Raises:
        UsageError: If the difference is no estimate, ``aligned`` is no bool, or there is no effective sample size where
            some are expected.

    Example:
        >>> print(null_verdict(Estimate.over_seeds([0.02, -0.01, 0.01]), aligned=True, effective_sample_size=None))
        not above its null: the interval does not lie above 0; 0.0067 [-0.0313, 0.0446] (95 %, 3 seeds), over seeds:
        about other training runs
    """
    return judge(
        Evidence(
            estimate=_checked(overlap_minus_null),
            single=True,
            aligned=(_aligned(aligned),),
            effective_sample_size=_effective(effective_sample_size),
        )
    )


def flag(name: str, value: object) -> bool:
    """Check that a value is a bool."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _aligned(value: object) -> bool | None:
    return None if value is None else flag("aligned (None where it is unclear or not measured)", value)


def _checked(estimate: object) -> Estimate:
    if not isinstance(estimate, Estimate):
        raise UsageError(f"expected an Estimate, such as table.contrast(...) gives, got {type(estimate).__name__}")
    return estimate


def _effective(every: Collection[float] | None) -> Collection[float] | None:
    if every is None:
        return None
    check_kind("effective_sample_size", every, Collection, "give those of every Fisher in a list")
    if not len(every):
        raise UsageError(
            "effective_sample_size is empty: give those of every Fisher behind the estimate, nan where not measured, "
            "or None for masks and activities"
        )
    return every
