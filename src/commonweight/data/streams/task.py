"""One task: its rows, its classes, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.data.streams.rows import RowSet


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream."""

    name: str
    """Its number and what sets it apart: ``2-45deg``; unique in the stream."""

    index: int
    train: RowSet
    test: RowSet
    classes: tuple[str, ...]
    """A label ``k`` means ``classes[k]``, and a network needs ``len(classes)`` outputs."""

    facts: Mapping[str, Any]
    """How it was made: plain JSON values."""
