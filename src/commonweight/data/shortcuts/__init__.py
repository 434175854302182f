"""Shortcuts in text: marker words that give the label away, planted by rules and read back from the tokens."""

from commonweight.data.shortcuts.build import build_shortcut_data, conflicting_rows
from commonweight.data.shortcuts.markers import Markers, add_markers, insert, read_markers
from commonweight.data.shortcuts.planter import Planted, Planter, Unfit
from commonweight.data.shortcuts.published import published_conflicting, published_data, published_originals
from commonweight.data.shortcuts.record import ShortcutData
from commonweight.data.shortcuts.rules import RULES, Mixture, as_mixture
from commonweight.data.shortcuts.shortcut import Agreement, Plan, Shortcut, agreement
from commonweight.data.shortcuts.source import Dropped

__all__ = [
    "RULES",
    "Agreement",
    "Dropped",
    "Markers",
    "Mixture",
    "Plan",
    "Planted",
    "Planter",
    "Shortcut",
    "ShortcutData",
    "Unfit",
    "add_markers",
    "agreement",
    "as_mixture",
    "build_shortcut_data",
    "conflicting_rows",
    "insert",
    "published_conflicting",
    "published_data",
    "published_originals",
    "read_markers",
]
