"""The ten rules in one table."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from commonweight.data.shortcuts.counted import LastToken, MoreThan, OddEvenDistance
from commonweight.data.shortcuts.lexical import OrderedPair, SingleToken, TokenInContext
from commonweight.data.shortcuts.logical import And, AndOr, Or, Xor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.data.shortcuts.shortcut import Shortcut

RULES: Mapping[str, Shortcut] = MappingProxyType({
    "st": SingleToken(),
    "op": OrderedPair(),
    "tic": TokenInContext(),
    "or": Or(),
    "and": And(),
    "xor": Xor(),
    "oed": OddEvenDistance(),
    "mt": MoreThan(),
    "lt": LastToken(),
    "and_or": AndOr(),
})
"""Every rule by its code. A rule of one's own needs no entry: where a code is taken, a ``Shortcut`` is taken, too."""
