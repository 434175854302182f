"""Objects for the libraries that people work in: a Trainer, its trackers, the Hub, Avalanche. One file per library.

Nothing else in the package imports this room. A library is imported when one of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commonweight.integrations.avalanche import SupermaskPlugin
    from commonweight.integrations.ewc import EarlierTask, EWCTrainerMixin
    from commonweight.integrations.hub import load_footprint, push_footprint
    from commonweight.integrations.trackers import log_continual, log_report, log_table
    from commonweight.integrations.trainer import OverlapCallback

_HOME = {
    "EWCTrainerMixin": "ewc",
    "EarlierTask": "ewc",
    "OverlapCallback": "trainer",
    "SupermaskPlugin": "avalanche",
    "load_footprint": "hub",
    "log_continual": "trackers",
    "log_report": "trackers",
    "log_table": "trackers",
    "push_footprint": "hub",
}

__all__ = [
    "EWCTrainerMixin",
    "EarlierTask",
    "OverlapCallback",
    "SupermaskPlugin",
    "load_footprint",
    "log_continual",
    "log_report",
    "log_table",
    "push_footprint",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"commonweight.integrations.{_HOME[name]}"), name)
    raise AttributeError(f"module 'commonweight.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
