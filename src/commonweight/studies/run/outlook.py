"""What a study will take of disk and memory, said before it begins: one record, one sentence, one layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from commonweight.base.folders import check_room, free_bytes
from commonweight.base.text import DASH, Block, Grid, size_words, time_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NOTHING_DONE = (
    "Nothing was measured or written (--dry-run); everything that can be checked beforehand was, and is in order."
)
MOST_SHOWN = 40


class Piece(Protocol):
    """One thing that a study makes."""

    @property
    def disk(self) -> int:
        """Bytes that it will write and keep."""


P = TypeVar("P", bound=Piece)


@dataclass(frozen=True)
class Outlook(Generic[P]):
    """Bytes of all that is still missing of a run."""

    place: Path
    """Where it goes."""

    title: str
    """What the pieces are: ``footprints with 8 folds to measure``."""

    pieces: Mapping[str, P]
    columns: Mapping[str, Callable[[P], str]]
    """Of the table of pieces: head -> what stands there."""

    memory: Mapping[str, int]
    """What is held in memory at most -> its bytes."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Other lines of the table of totals."""

    models: int = 0
    """Bytes of all models that will be written, with what their training keeps beside them."""

    meanwhile: int = 0
    """Bytes at most of what lies beside all that while the work goes on, and goes in the end."""

    thrown_away: int = 0
    """Bytes of a former run that go before anything is written."""

    remarks: tuple[str, ...] = ()

    @property
    def disk(self) -> int:
        """Bytes that will be written and stay, but for records, tables and figures."""
        return self.models + sum(piece.disk for piece in self.pieces.values())

    @property
    def most(self) -> int:
        """Bytes at most while the work goes on: what stays, and what does not."""
        return self.disk + self.meanwhile

    def with_time(self, seconds: float, what: str) -> Self:
        """Add how long it will take; nan adds nothing."""
        if math.isnan(seconds):
            return self
        said = f"about {time_words(seconds)}"
        return replace(self, facts={**self.facts, f"time to {what} (from a short probe)": said})

    def check(self) -> None:
        """Check that there is room; a :class:`~commonweight.UsageError` says how much is missing."""
        if self.most > self.thrown_away:
            check_room(self.place, self.most - self.thrown_away)

    def sentence(self) -> str:
        """Say it in one sentence."""
        meanwhile = f", at most {size_words(self.meanwhile)} more meanwhile" if self.meanwhile else ""
        memory = " and ".join(f"{size_words(size)} for {what}" for what, size in self.memory.items())
        return (
            f"{len(self.pieces)} {self.title}: {size_words(self.disk)} of disk{meanwhile}, and "
            f"{size_words(free_bytes(self.place))} are free; in memory {memory}, beside what a forward and backward "
            "pass takes"
        )

    def blocks(self) -> list[Block]:
        """Lay it out."""
        shown = list(self.pieces.items())[:MOST_SHOWN]
        rows = tuple((name, *(cell(piece) for cell in self.columns.values())) for name, piece in shown)
        left = len(self.pieces) > len(rows)
        title = f"{self.title.capitalize()} ({len(self.pieces)}{f'; the first {MOST_SHOWN}' if left else ''})"
        totals = (
            *self.facts.items(),
            ("models and their training", size_words(self.models) if self.models else DASH),
            ("disk in all", size_words(self.disk)),
            *((("disk at most, meanwhile", size_words(self.most)),) if self.meanwhile else ()),
            *((("thrown away before", size_words(self.thrown_away)),) if self.thrown_away else ()),
            ("free on that disk", size_words(free_bytes(self.place))),
            *((f"memory: {what}", size_words(size)) for what, size in self.memory.items()),
        )
        return [
            *([Grid(title, ("", *self.columns), rows)] if rows else []),
            Grid(f"What {self.place} will take", ("", ""), totals),
            "Records, tables and figures come to little beside that; a forward and backward pass takes memory of its "
            f"own. {NOTHING_DONE}",
            *self.remarks,
        ]
