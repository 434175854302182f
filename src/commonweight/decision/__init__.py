"""Decision: what to do with what models have in common.

From which prior task a new one starts, which task an input is of, fusing models, paths between them, and the control.
"""

from commonweight.decision.control import distances, random_direction
from commonweight.decision.fusing import fuse
from commonweight.decision.in_place import fused_at
from commonweight.decision.paths import interpolation_path, simplex_path

__all__ = ["distances", "fuse", "fused_at", "interpolation_path", "random_direction", "simplex_path"]
