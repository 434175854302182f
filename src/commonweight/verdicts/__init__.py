"""What a number supports, and what it takes."""

from commonweight.verdicts.tables import layers_verdict, overlap_verdict, pairs_verdict
from commonweight.verdicts.verdict import Need, Verdict, contrast_verdict, null_verdict

__all__ = ["Need", "Verdict", "contrast_verdict", "layers_verdict", "null_verdict", "overlap_verdict", "pairs_verdict"]
