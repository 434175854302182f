"""What a person sees: text, tables and figures of finished data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commonweight.report.curves import plot_layer_overlap
    from commonweight.report.maps import plot_supermask

_HOME = {"plot_layer_overlap": "curves", "plot_supermask": "maps"}

__all__ = ["plot_layer_overlap", "plot_supermask"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"commonweight.report.{_HOME[name]}"), name)
    raise AttributeError(f"module 'commonweight.report' has no attribute {name!r}")
