"""The rules: one check for each thing that a verdict asks, and the table of them, which is all that decides.

A new one is a function here and an entry in :data:`NEEDS`: what it asks, what is said without it, and its words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.estimate import LEVEL
from commonweight.footprints.copies import MOST_COPIED

if TYPE_CHECKING:
    from commonweight.verdicts.evidence import Evidence

MORE: Literal["shares more"] = "shares more"
LESS: Literal["shares less"] = "shares less"
INCONCLUSIVE: Literal["inconclusive"] = "inconclusive"
ABOVE: Literal["above its null"] = "above its null"
NOT_ABOVE: Literal["not above its null"] = "not above its null"
Answer = Literal["shares more", "shares less", "inconclusive", "above its null", "not above its null"]

STANDS: Literal["the answer stands"] = "the answer stands"
NOT_ASKED: Literal["not asked"] = "not asked"
Without = Literal["inconclusive", "not above its null", "the answer stands", "not asked"]
"""What is said where a need is not met."""

SMALLEST_EFFECTIVE = 20
"""Below this effective sample size of a Fisher, an interval over folds can be too narrow: docs/evidence.md."""

LOW_NOISE_CEILING = 0.8
"""Where a noise ceiling is lower, corrected overlaps were seen to keep some of the noise: docs/evidence.md."""

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


@dataclass(frozen=True)
class Finding:
    """One thing that a verdict asked, and what was found."""

    code: str
    """Which, as in :data:`NEEDS`."""

    fault: str
    """What is wrong, as the ``words`` of the need list it; empty where it is met."""

    found: Mapping[str, Any] = field(default_factory=dict)
    """The numbers and names behind it."""

    without: Without = INCONCLUSIVE
    """What is said where it is not met."""

    @property
    def met(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault


Found = tuple[str, Mapping[str, Any]] | None
"""What a check returns: the fault and what was found; None where it is not asked."""

MET: Found = ("", {})


def _none(wrong: object, fault: str, name: str) -> Found:
    """Ask that there are none of what would be wrong."""
    return None if wrong is None else (fault if wrong else "", {name: wrong})


def _shortcut_learned(evidence: Evidence) -> Found:
    return _none(evidence.not_learned, "not learned", "models")


def _two_footprints(evidence: Evidence) -> Found:
    return _none(evidence.one_and_the_same, "one", "pairs")


def _counted_rows(evidence: Evidence) -> Found:
    if evidence.rows is None:
        return None
    uncounted = tuple(dict.fromkeys(name for name, rows in evidence.rows if rows is None))
    return ("not counted", {"footprints": uncounted}) if uncounted else MET


def _distinct_rows(evidence: Evidence) -> Found:
    counted = [(name, rows) for name, rows in evidence.rows or () if rows is not None]
    if not counted:
        return None
    name, rows = max(counted, key=lambda found: found[1].copied_share)
    return "" if rows.are_disjoint else "copies", {"footprint": name, **rows._asdict()}


def _at_most_1(evidence: Evidence) -> Found:
    if evidence.corrected is None:
        return None
    level = 1 - (1 - LEVEL) / max(1, len(evidence.corrected))
    for pair, layer, overlap in evidence.corrected:
        if overlap.value - overlap.half_width(level) > 1 + STORED:
            return "above" if layer is None else "above in layer", {"pair": pair, "layer": layer, "overlap": overlap}
    return MET


def _two_networks(evidence: Evidence) -> Found:
    return _none(evidence.one_network, "one", "pairs")


def _beyond_the_null_too(evidence: Evidence) -> Found:
    """Both differences have to lie on the same side of 0, by more than rounding."""
    if (beyond := evidence.beyond) is None:
        return None
    agrees = beyond.low > STORED if evidence.estimate.value > 0 else beyond.high < -STORED
    return "" if agrees else "disagree", {"beyond": beyond}


def _same_rows(evidence: Evidence) -> Found:
    return None if evidence.same_rows is None else ("" if evidence.same_rows else "differ", {})


def _shared_initialisation(evidence: Evidence) -> Found:
    if all(evidence.aligned):
        return MET
    if False not in evidence.aligned:
        return "unclear", {}
    if not evidence.strange:
        return "none", {}
    fault = "of layers" if evidence.strange_share < 1 else "of the layer"
    return fault, {"layers": evidence.strange, "share": evidence.strange_share}


def _in_every_layer(evidence: Evidence) -> Found:
    if evidence.strange is None or False in evidence.aligned:  # which the shared initialisation tells
        return None
    return ("not in all", {"layers": evidence.strange, "share": evidence.strange_share}) if evidence.strange else MET


def _noise_taken_out(evidence: Evidence) -> Found:
    return None if evidence.noise_taken_out is None else ("" if evidence.noise_taken_out else "raw", {})


def _effective_sample_size(evidence: Evidence) -> Found:
    if (every := evidence.effective_sample_size) is None:
        return None
    if not all(map(math.isfinite, every)):
        return "not measured", {}
    least = min(every)
    shown = math.floor(10 * least) / 10  # 19.96 is not 20.0
    return "few" if least < SMALLEST_EFFECTIVE else "", {"least": shown, "needed": SMALLEST_EFFECTIVE}


def _interval(evidence: Evidence) -> Found:
    estimate = evidence.estimate
    if math.isinf(estimate.value):
        return "infinite", {}
    if estimate.missing is not None:
        return "missing", {"estimate": estimate}
    least, most = min(estimate.replicates), max(estimate.replicates)
    size = max(abs(estimate.value), abs(least), abs(most))
    return "copies" if size > ROUNDING and most - least <= COPIES * size else "", {"estimate": estimate}


def _excludes_0(evidence: Evidence) -> Found:
    """The interval has to lie above 0, or of a contrast below it, by more than rounding."""
    estimate = evidence.estimate
    if math.isinf(estimate.value) or estimate.missing is not None:
        return None
    end = estimate.low if evidence.single else max(estimate.low, -estimate.high)
    rounding = ROUNDING if evidence.effective_sample_size is None else STORED
    if end > rounding:
        return MET
    if end > ROUNDING:
        return "rounding", {"rounding": rounding}
    return "not above" if evidence.single else "includes", {}


def _every_parameter(evidence: Evidence) -> Found:
    return _none(evidence.left_out, "left out", "count")


def _high_noise_ceilings(evidence: Evidence) -> Found:
    ceilings = [ceiling for ceiling in evidence.noise_ceilings or () if not math.isnan(ceiling)]
    if not ceilings:
        return None
    return "low" if min(ceilings) < LOW_NOISE_CEILING else "", {"least": min(ceilings)}


def _larger_than_controls(evidence: Evidence) -> Found:
    """A contrast that excludes 0 should be farther from it than the controls; replicates are in common."""
    estimate = evidence.estimate
    if not evidence.controls or not (estimate.low > 0 or estimate.high < 0):
        return None
    sign = 1.0 if estimate.low > 0 else -1.0
    # also not where the control, or the interval of the difference, is undefined
    others = {name: each for name, each in evidence.controls.items() if not (sign * (estimate - each)).low > 0}
    return ("not larger", {"controls": tuple(others)}) if others else MET


@dataclass(frozen=True)
class Need:
    """Something a verdict asks."""

    code: str
    check: Callable[[Evidence], Found]
    demand: str
    """When it is met."""

    words: Mapping[str, str]
    """Fault -> a sentence with places for what was found."""

    short: str = ""
    """What a table of layers says without it; empty where the answer always stands."""

    contrast: Without = INCONCLUSIVE
    """What a contrast says without it."""

    single: Without = INCONCLUSIVE
    """What a single overlap says without it."""


NEEDS: tuple[Need, ...] = (
    Need(
        "shortcut learned",
        _shortcut_learned,
        "on its own shortcut, each model's accuracy is at least halfway between that of a constant answer and 1 (asked "
        "by the study of shortcuts)",
        {"not learned": "own shortcut not learned by {models}"},
        short="not learned",
        single=NOT_ASKED,
    ),
    Need(
        "two footprints",
        _two_footprints,
        "the two footprints of a pair hold different numbers (asked of tables)",
        {"one": "{pairs} are the same footprint"},
        short="one footprint",
    ),
    Need(
        "counted rows",
        _counted_rows,
        "copies among the rows behind it were counted (asked of tables of Fishers)",
        {"not counted": "copies among the rows were not counted"},
        short="rows not counted",
        single=STANDS,
    ),
    Need(
        "distinct rows",
        _distinct_rows,
        f"at most {100 * MOST_COPIED:.0f} % of the rows behind it have copies in other folds (asked of tables of "
        "Fishers)",
        {
            "copies": "{copied} of {total} rows of {footprint!r} have copies in other folds ({distinct} are distinct): "
            "give all copies of a row one source_row, or each its own if they are independent draws"
        },
        short="copied rows",
    ),
    Need(
        "at most 1",
        _at_most_1,
        "no corrected overlap behind it has an interval wholly above 1, a sign of noise in common (with several, "
        "intervals are widened by Bonferroni's rule; asked of tables of Fishers with folds)",
        {
            "above": "the corrected overlap of {pair} is above 1, {overlap}: do they have noise in common?",
            "above in layer": "the corrected overlap of {pair} in layer {layer!r} is above 1, {overlap}: do they have "
            "noise in common?",
        },
        short="above 1",
    ),
    Need(
        "two networks",
        _two_networks,
        "the two models differ in their weights: a network shares all its weights with itself (asked of two layers)",
        {"one": "{pairs} are of one network, which shares all its weights with itself"},
        short="one network",
        single=NOT_ASKED,
    ),
    Need(
        "beyond the null too",
        _beyond_the_null_too,
        "the interval of the difference in corrected - null excludes 0 on the same side, since layers have different "
        "nulls (asked of two layers)",
        {"disagree": "the difference in corrected - null does not agree: {beyond}"},
        short="not beyond the null",
        single=NOT_ASKED,
    ),
    Need(
        "same rows",
        _same_rows,
        "both sides were measured on the same source rows",
        {"differ": "the two sides have different source rows"},
        short="other rows",
        single=NOT_ASKED,
    ),
    Need(
        "shared initialisation",
        _shared_initialisation,
        "the models of each overlap have a shared initialisation, and it was measured",
        {
            "none": "no shared initialisation, so overlap is not sharing",
            "of the layer": "no shared initialisation in {layers}, so overlap is not sharing",
            "of layers": "no shared initialisation in {layers} (up to {share:.0%} of a trace), so overlap is not "
            "sharing",
            "unclear": "it is unclear, or was not measured, whether there is a shared initialisation",
        },
        short="no shared initialisation",
        single=STANDS,
    ),
    Need(
        "noise taken out",
        _noise_taken_out,
        "both overlaps are corrected: noise lowers raw overlaps, by unequal amounts (asked of Fishers)",
        {"raw": "noise lowers raw overlaps, by unequal amounts: take corrected ones, which need folds"},
        short="raw",
        single=NOT_ASKED,
    ),
    Need(
        "effective sample size",
        _effective_sample_size,
        f"it is at least {SMALLEST_EFFECTIVE} in every Fisher behind the verdict; for a layer, in that layer (asked of "
        "Fishers)",
        {
            "few": "the smallest effective sample size is {least:.1f}, and {needed} are needed",
            "not measured": "an effective sample size was not measured",
        },
        short="few examples",
    ),
    Need(
        "interval",
        _interval,
        "there are at least 3 folds, or 2 seeds, with a finite value in each; the values are not all equal, unless all "
        "are 0",
        {
            "infinite": "the value is infinite",
            "missing": "{estimate.missing}",
            "copies": "all replicates are equal: are they copies?",
        },
        short="no interval",
    ),
    Need(
        "excludes 0",
        _excludes_0,
        f"the {100 * LEVEL:.0f} % interval of a contrast excludes 0; for a single overlap, that of corrected - null "
        "lies above 0",
        {
            "includes": "the interval includes 0",
            "not above": "the interval does not lie above 0",
            "rounding": "the interval comes within {rounding:g} of 0, which can be rounding",
        },
        short="holds 0",
        single=NOT_ABOVE,
    ),
    Need(
        "every parameter",
        _every_parameter,
        "no parameter was left out (asked of tables)",
        {"left out": "only common parameters were compared, and {count} left out"},
        contrast=STANDS,
        single=STANDS,
    ),
    Need(
        "in every layer",
        _in_every_layer,
        "models with a shared initialisation have it in every layer (asked of tables)",
        {"not in all": "no shared initialisation in {layers} (up to {share:.0%} of a trace)"},
        contrast=STANDS,
        single=STANDS,
    ),
    Need(
        "high noise ceilings",
        _high_noise_ceilings,
        f"no noise ceiling is below {LOW_NOISE_CEILING:g} (asked of tables of Fishers with folds)",
        {"low": "a noise ceiling of {least:.2f} leaves some noise in"},
        contrast=STANDS,
        single=STANDS,
    ),
    Need(
        "larger than controls",
        _larger_than_controls,
        "the difference is farther from 0 than the same contrast with a control (asked by the study of shortcuts)",
        {"not larger": "not shown to be larger than the same contrast {controls}"},
        contrast=STANDS,
        single=NOT_ASKED,
    ),
)
"""Everything verdicts ask, in order."""
