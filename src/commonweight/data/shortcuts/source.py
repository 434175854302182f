"""The three parts of a source: train, dev and test rows, carved from train where the source does not have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.shortcuts.keyed import choose
from commonweight.data.shortcuts.rows import NO_LABEL, Columns, Dropped, Row, find_columns, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commonweight.data.shortcuts.markers import Markers

TRAIN = "train"
PARTS = {"dev": ("validation", "dev", "valid"), "test": ("test",)}
"""What the split of a purpose may be called; the first that exists is taken."""

CARVED = 0.1
"""Share of the train rows that becomes dev rows, or test rows, where the source has none."""


@dataclass(frozen=True)
class Part:
    """Rows of one purpose."""

    rows: list[Row]
    split: str
    """The source split they come from; ``source_row`` counts there."""

    origin: str
    """Where they come from, in words."""


@dataclass(frozen=True)
class Source:
    """Train, dev and test rows that share no row."""

    columns: Columns
    parts: dict[str, Part]
    """By purpose: ``train``, ``dev``, ``test``."""

    classes: frozenset[int]
    """Numbers of the classes: those with names, or those that occur."""

    dropped: list[Dropped]


def read_source(
    source: Any, markers: Markers, *, text_column: str | None, label_column: str | None, seed: int, rows: int | None
) -> Source:
    """Read a source's rows and share them out."""
    splits = _splits(source)
    columns = find_columns(splits, text_column, label_column)
    found: dict[str, list[Row]] = {}
    dropped: list[Dropped] = []
    withheld: set[str] = set()
    for split, data in splits.items():
        kept, lost = read_rows(split, data, columns)
        if split != TRAIN and not kept and all(each.reason == NO_LABEL for each in lost):
            withheld.add(split)
            continue
        dropped += lost
        found[split] = [row for row in kept if markers.held_by(row.text) is None]
        dropped += [
            Dropped(split, row.source_row, f"the text already holds the marker {word!r}")
            for row in kept
            if (word := markers.held_by(row.text)) is not None
        ]
        if not found[split]:
            raise UsageError(f"no row of split {split!r} can be used; the first: {dropped[-1].reason}")
    classes = _classes(columns, found.values())
    train, parts = found[TRAIN], {}
    for purpose, names in PARTS.items():
        name = next((name for name in names if name in splits), None)
        if name is not None and name not in withheld:
            parts[purpose] = Part(found[name], name, f"split {name!r}")
            continue
        why = f"split {name!r} has no labels" if name else f"there is no split {' or '.join(map(repr, names))}"
        share = CARVED * len(found[TRAIN]) / len(train)
        chosen = choose([row.source_row for row in train], share, seed, "carve", purpose)
        carved = [row for place, row in enumerate(train) if place in chosen]
        train = [row for place, row in enumerate(train) if place not in chosen]
        if not carved or not train:
            raise UsageError(f"{why}, and split 'train' has too few rows ({len(found[TRAIN])}) to give a tenth away")
        parts[purpose] = Part(carved, TRAIN, f"{CARVED:.0%} of split 'train' chosen by seed {seed}, for {why}")
    if rows is not None:
        if not 1 <= rows <= len(train):
            raise UsageError(f"rows must lie in 1..{len(train)}, the train rows there are; got {rows}")
        chosen = choose([row.source_row for row in train], rows / len(train), seed, "rows")
        train = [row for place, row in enumerate(train) if place in chosen]
    parts[TRAIN] = Part(
        train, TRAIN, "split 'train'" if rows is None else f"{rows} rows of split 'train' chosen by seed {seed}"
    )
    return Source(columns, parts, classes, dropped)


def _splits(source: Any) -> dict[str, Any]:
    if not isinstance(source, Mapping):
        return {TRAIN: source}
    if TRAIN not in source:
        raise UsageError(f"no split 'train' in the source; {among(TRAIN, map(str, source))}")
    wanted = [TRAIN, *(next((name for name in names if name in source), TRAIN) for names in PARTS.values())]
    return {name: source[name] for name in wanted}


def _classes(columns: Columns, splits: Iterable[list[Row]]) -> frozenset[int]:
    if columns.names:
        return frozenset(range(len(columns.names)))
    classes = frozenset(row.label for rows in splits for row in rows)
    if len(classes) < 2:
        raise UsageError(f"all labels are {min(classes)}; a shortcut needs two classes at least")
    return classes
