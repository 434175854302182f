"""What a number supports, and what it takes."""

from commonweight.verdicts.rules import NEEDS, Finding, Need
from commonweight.verdicts.verdict import contrast_verdict, null_verdict

__all__ = ["NEEDS", "Finding", "Need", "contrast_verdict", "null_verdict"]
