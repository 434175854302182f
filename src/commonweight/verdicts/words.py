"""The words of verdicts, made once and at the end from their findings. Nothing is decided here."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from commonweight.base.estimate import LEVEL
from commonweight.base.text import number
from commonweight.verdicts.rules import ABOVE, INCONCLUSIVE, LESS, MORE, NEEDS, NOT_ABOVE, STANDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.base.estimate import Estimate, Over
    from commonweight.verdicts.rules import Answer, Finding

OVER: Mapping[Over, str] = MappingProxyType({
    "folds": "over folds: about other examples and the same trained models, not about other training runs",
    "seeds": "over seeds: about other training runs",
})

SHORT: Mapping[Answer, str] = MappingProxyType({
    MORE: "more",
    LESS: "less",
    ABOVE: "above",
    NOT_ABOVE: "not above",
    INCONCLUSIVE: INCONCLUSIVE,
})
"""Answers in a table whose title asks the question."""

MOST_NAMED = 6
"""Names that a sentence lists; of more it says how many there are."""

_NEEDS = MappingProxyType({need.code: need for need in NEEDS})


def sentence(finding: Finding) -> str:
    """Say what is wrong."""
    words = _NEEDS[finding.code].words[finding.fault]
    return words.format(**{name: _shown(value) for name, value in finding.found.items()})


def reason(estimate: Estimate, findings: Sequence[Finding], *, over: bool) -> str:
    """Say what is lacking, the number with its interval (and what that is over), and what to read beside it."""
    faults = [finding for finding in findings if not finding.met]
    said = [sentence(finding) for finding in faults if finding.without != STANDS]
    if estimate.missing and math.isfinite(estimate.value):
        said.append(f"the value is {number(estimate.value)}")
    elif math.isfinite(estimate.value):
        said.append(f"{estimate}, {OVER[estimate.over]}" if over else str(estimate))
    also = [sentence(finding) for finding in faults if finding.without == STANDS]
    return "; ".join([*said, *([f"also: {'; '.join(also)}"] if also else [])])


def short(answer: Answer, lacking: Sequence[Finding]) -> str:
    """Write a verdict for a table of layers."""
    return SHORT[answer] if answer != INCONCLUSIVE else f"{SHORT[answer]} ({_NEEDS[lacking[0].code].short})"


def by_chance(looked_at: int, of: Literal["contrasts", "nulls"]) -> str:
    """Say how many of several intervals would exclude 0 by chance: a contrast on either side, a null above only."""
    share, nothing, would = {
        "contrasts": (1 - LEVEL, "nothing differed", "exclude 0"),
        "nulls": ((1 - LEVEL) / 2, "nothing were above its null", "appear to be"),
    }[of]
    return (
        f"Each interval is at {100 * LEVEL:.0f} %, and there are {looked_at}: if {nothing}, about "
        f"{looked_at * share:.1f} would {would} by chance."
    )


def _shown(value: object) -> object:
    """List names; leave all else to the format of its sentence."""
    if not isinstance(value, tuple):
        return value
    if value and isinstance(value[0], tuple):
        return ", ".join(str(_shown(each)) for each in value)
    named = [_named(name) for name in value[:MOST_NAMED]]
    if len(value) > MOST_NAMED:
        named.append(f"{len(value) - MOST_NAMED} more")
    *head, last = named
    return f"{', '.join(head)} and {last}" if head else last


def _named(name: str) -> str:
    return repr(name) if name else "the whole network"
