"""Fusing models into one, the paths between them, and the random-direction control."""

from commonweight.fusion.fusing import fuse
from commonweight.fusion.modules import fused_at
from commonweight.fusion.paths import distances, interpolation_path, random_direction, simplex_path

__all__ = ["distances", "fuse", "fused_at", "interpolation_path", "random_direction", "simplex_path"]
