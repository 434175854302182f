"""Decision: what to do with what models have in common.

From which prior task a new one starts, which task an input is of, fusing models, paths between them, and the control.
What an overlap, or a contrast of two, may be said to show. The penalty that keeps what a Fisher says matters.
"""

from commonweight.decision.control import distances, random_direction
from commonweight.decision.ewc import ewc_penalty
from commonweight.decision.fusing import fuse
from commonweight.decision.in_place import fused_at
from commonweight.decision.layer_verdicts import layers_verdict
from commonweight.decision.paths import interpolation_path, simplex_path
from commonweight.decision.table_verdicts import overlap_verdict, pairs_verdict
from commonweight.decision.verdict import Need, Verdict, contrast_verdict, null_verdict

__all__ = [
    "Need",
    "Verdict",
    "contrast_verdict",
    "distances",
    "ewc_penalty",
    "fuse",
    "fused_at",
    "interpolation_path",
    "layers_verdict",
    "null_verdict",
    "overlap_verdict",
    "pairs_verdict",
    "random_direction",
    "simplex_path",
]
