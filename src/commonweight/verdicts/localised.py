"""Verdicts on sets of weights: does a set suffice, is it necessary, shared, specific to a model, in a merge's way?

A claim lists what has to lie above 0; all of it has to (an intersection-union test, so its p is the largest of theirs).
Over all claims of a run the p are adjusted after Holm (1979). Decided on data; words are made last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from commonweight.base.estimate import LEVEL
from commonweight.base.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Claim = Literal["suffices", "is necessary", "shared", "specific", "conflicts"]
Outcome = Literal["suffices", "is necessary", "shared", "specific", "conflicts", "in part", "inconclusive"]
Lacking = Literal["", "undefined", "holds 0", "family", "share undefined"]


class Judged(Protocol):
    """A number that is judged by its interval: over rows and null sets, or over training seeds."""

    @property
    def value(self) -> float:
        """What it is; nan where it is undefined."""

    @property
    def reason(self) -> str:
        """Why it is undefined; empty where it is not."""

    @property
    def low(self) -> float:
        """Lower end of its 95 % interval."""

    def p_above_0(self) -> float:
        """Test whether it is above 0."""

    def short(self, decimals: int = 3) -> str:
        """Write it with its interval."""

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""


@dataclass(frozen=True)
class SetClaim:
    """What is claimed of a set of weights, and the numbers that have to lie above 0."""

    claim: Claim
    subject: str
    """The set."""

    needs: Mapping[str, Judged]
    """What has to lie above 0, by what it is."""

    share: Judged | None = None
    """Sufficiency or necessity, whose lower end tells the whole from a part."""

    to: str = ""
    """The model that it is specific to."""


@dataclass(frozen=True)
class SetVerdict:
    """What may be said of a claim."""

    asked: SetClaim
    outcome: Outcome
    p: float
    """Adjusted after Holm over the family."""

    family: int
    """How many claims were judged together."""

    lacking: Lacking = ""
    """What cost the answer."""

    need: str = ""
    """The need that was lacking."""

    found: Mapping[str, str] = field(default_factory=dict)
    """Words to put into the sentence."""

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        share = self.asked.share
        shown = f"; the share is {share.short(2)}" if share is not None and not share.reason else ""
        return REASONS[self.lacking].format(need=self.need, p=number(self.p, 3), family=self.family, **self.found) + (
            shown if not self.lacking else ""
        )

    @property
    def sentence(self) -> str:
        """What may be said, without the reason."""
        to = f" to {self.asked.to}" if self.asked.to else ""
        return f"{self.asked.subject} {WORDS[self.asked.claim][self.outcome]}{to}"

    def __str__(self) -> str:
        return f"{self.sentence}: {self.reason}"

    def record(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "claim": self.asked.claim,
            "subject": self.asked.subject,
            "outcome": self.outcome,
            "p": self.p,
            "family": self.family,
            "reason": self.reason,
            "needs": {name: need.record() for name, need in self.asked.needs.items()},
            "share": None if self.asked.share is None else self.asked.share.record(),
        }


REASONS: Mapping[Lacking, str] = MappingProxyType({
    "": "every interval lies above 0, p = {p} over {family} claims",
    "undefined": "undefined ({need}): {why}",
    "holds 0": "{need} is {interval}, not above 0",
    "family": "the intervals lie above 0, but not after Holm's correction: p = {p} over {family} claims",
    "share undefined": "the share is undefined: {why}",
})

WORDS: Mapping[Claim, Mapping[Outcome, str]] = MappingProxyType({
    "suffices": {"suffices": "suffices", "in part": "suffices in part", "inconclusive": "is not shown to suffice"},
    "is necessary": {
        "is necessary": "is necessary",
        "in part": "is necessary in part",
        "inconclusive": "is not shown to be necessary",
    },
    "shared": {"shared": "is shared", "inconclusive": "is not shown to be shared"},
    "specific": {"specific": "is specific", "inconclusive": "is not shown to be specific"},
    "conflicts": {"conflicts": "conflicts", "inconclusive": "is not shown to conflict"},
})


def which_hold(verdicts: Sequence[SetVerdict]) -> str:
    """Say in one or two sentences which claims of a family hold."""
    shown = [each.sentence for each in verdicts if each.outcome != "inconclusive"]
    if not shown:
        kinds = ", ".join(dict.fromkeys(each.asked.claim for each in verdicts))
        return f"none of {len(verdicts)} claims is shown to hold ({kinds})."
    others = " The others are inconclusive." if len(shown) < len(verdicts) else ""
    return f"{len(shown)} of {len(verdicts)} claims hold: {'; '.join(shown)}.{others}"


def judge_sets(claims: Sequence[SetClaim], least_share: float = 0.5) -> tuple[SetVerdict, ...]:
    """Judge the claims of a run together.

    Args:
        claims: The family.
        least_share: A set suffices, or is necessary, whole where the lower end of its share is at least this; else in
            part.

    Returns:
        One verdict per claim, in their order.

    Example:
        >>> import numpy as np
        >>> from commonweight.base.resampled import Resampled
        >>> clear = Resampled(0.3, np.linspace(0.2, 0.4, 999))
        >>> claim = SetClaim("suffices", "A", {"set − matched": clear}, share=clear)
        >>> [found.outcome for found in judge_sets([claim])]
        ['in part']
    """
    adjusted = holm([max((need.p_above_0() for need in claim.needs.values()), default=1.0) for claim in claims])
    return tuple(_judge(claim, p, len(claims), least_share) for claim, p in zip(claims, adjusted, strict=True))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p for several tests (Holm 1979).

    Args:
        ps: One per test.

    Returns:
        The adjusted ones, in their order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    found, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = largest
    return found


def _judge(claim: SetClaim, p: float, family: int, least_share: float) -> SetVerdict:
    for name, need in claim.needs.items():
        if need.reason:
            return SetVerdict(claim, "inconclusive", p, family, "undefined", name, {"why": need.reason})
    for name, need in claim.needs.items():
        if not need.low > 0:
            return SetVerdict(claim, "inconclusive", p, family, "holds 0", name, {"interval": need.short()})
    if p > 1 - LEVEL:
        return SetVerdict(claim, "inconclusive", p, family, "family")
    if claim.share is None:
        return SetVerdict(claim, claim.claim, p, family)
    if claim.share.reason:
        return SetVerdict(claim, "inconclusive", p, family, "share undefined", found={"why": claim.share.reason})
    return SetVerdict(claim, claim.claim if claim.share.low >= least_share else "in part", p, family)
