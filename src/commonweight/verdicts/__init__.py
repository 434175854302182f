"""What a number supports, and what it takes."""

from commonweight.verdicts.localised import SetClaim, SetVerdict, holm, judge_sets
from commonweight.verdicts.rules import NEEDS, Finding, Need
from commonweight.verdicts.verdict import contrast_verdict, null_verdict

__all__ = [
    "NEEDS",
    "Finding",
    "Need",
    "SetClaim",
    "SetVerdict",
    "contrast_verdict",
    "holm",
    "judge_sets",
    "null_verdict",
]
