"""Fusing models into one, the paths between them, and the random-direction control.

Names are imported when they are first used: the command line reads the table of methods without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commonweight.fusion.methods import METHODS
    from commonweight.fusion.methods.method import Entries, Method, moved
    from commonweight.fusion.modules import fused_at
    from commonweight.fusion.paths import distances, interpolation_path, random_direction, simplex_path

_HOME = {
    "Entries": "methods.method",
    "METHODS": "methods",
    "Method": "methods.method",
    "distances": "paths",
    "fused_at": "modules",
    "interpolation_path": "paths",
    "moved": "methods.method",
    "random_direction": "paths",
    "simplex_path": "paths",
}

__all__ = [
    "METHODS",
    "Entries",
    "Method",
    "distances",
    "fused_at",
    "interpolation_path",
    "moved",
    "random_direction",
    "simplex_path",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"commonweight.fusion.{_HOME[name]}"), name)
    raise AttributeError(f"module 'commonweight.fusion' has no attribute {name!r}")
