"""Rows of text with labels: read from any text-classification data set, shared out, and written with their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from commonweight.base.errors import UsageError
from commonweight.base.names import among
from commonweight.data.columns import label_column, text_columns
from commonweight.data.shortcuts.keyed import choose
from commonweight.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from commonweight.data.shortcuts.markers import Markers

ORIGINAL, DISTRACTED, SYNTHETIC, CONFLICTING = "original", "distracted", "synthetic", "conflicting"
CONFLICTING_DRAWS = "contradicted"
"""Keys the draws of conflicting rows. It is no name: another key would be other draws."""

KINDS = (ORIGINAL, DISTRACTED, SYNTHETIC, CONFLICTING)
NO_LABEL, NO_TEXT = "no label", "the text is empty"
OWN_COLUMNS = ("source_row", "kind", "shortcut")


class Row(NamedTuple):
    """One row, as it is written."""

    text: str
    label: int
    source_row: int
    """Number of the row in its source split, or what a column ``source_row`` there says."""

    kind: str = ORIGINAL
    """``original``, ``distracted`` (a lone marker, own label), ``synthetic`` or ``conflicting``."""

    shortcut: str = ""
    """Code of the rule that set the label; empty if none did."""


@dataclass(frozen=True)
class Dropped:
    """A row that is left out, and why."""

    split: str
    source_row: int
    reason: str


def in_words(dropped: Sequence[Dropped], rows: int) -> str:
    """List dropped rows, reason by reason."""
    reasons: dict[str, list[int]] = {}
    for each in dropped:
        reasons.setdefault(each.reason, []).append(each.source_row)
    listed = [f"{reason}: rows {', '.join(map(str, numbers))}." for reason, numbers in reasons.items()]
    return " ".join([f"{len(dropped)} of {rows} rows dropped.", *listed])


@dataclass(frozen=True)
class Columns:
    """What is called what, and which classes there are."""

    text: str
    label: str
    names: tuple[str, ...] = ()
    """Names of the classes; empty where the labels are plain numbers."""

    def write(self, rows: Sequence[Row], description: str) -> Any:
        """Make a data set."""
        import datasets

        text, number = datasets.Value("string"), datasets.Value("int64")
        label = datasets.ClassLabel(names=list(self.names)) if self.names else number
        kinds = {self.text: text, self.label: label, "source_row": number, "kind": text, "shortcut": text}
        values = {name: [row[place] for row in rows] for place, name in enumerate(kinds)}
        found = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
        found.info.description = description
        return found


def find_columns(splits: dict[str, Any], text: str | None, label: str | None) -> Columns:
    """Find the columns and classes that several splits of one data set share."""
    found: dict[str, tuple[Columns, bool]] = {}
    names: set[str] = set()
    for split, rows in splits.items():
        table = _table(split, rows)
        plain = Table(table.name, rows.remove_columns([own for own in OWN_COLUMNS if own in table.columns]), (), {})
        where = label_column(plain, label)
        (what,) = text_columns(plain, (text,) if text else (), label=where)
        feature = rows.features[where]
        dtype = str(getattr(feature, "dtype", feature))
        spelled = dtype in {"string", "large_string"}
        if spelled:
            names |= {value for value in table.column(where) if value is not None}
        elif not dtype.startswith(("int", "uint", "bool")):
            raise UsageError(
                f"labels in {where!r} of {table.name} are {dtype}, expected classes (whole numbers, ClassLabel or "
                "strings); name another column with {label_column}",
                label_column=None,
            )
        found[split] = Columns(what, where, tuple(getattr(feature, "names", None) or ())), spelled
    first, *others = found
    for split in others:
        if found[split] != found[first]:
            raise UsageError(
                f"split {split!r} has {found[split][0]}, and {first!r} has {found[first][0]}; bring them to the same "
                "columns, label type and classes"
            )
    columns = replace(found[first][0], names=tuple(sorted(names)) or found[first][0].names)
    if len(columns.names) == 1:
        raise UsageError(f"there is one class, {columns.names[0]!r}; a shortcut needs two at least")
    return columns


def read_rows(split: str, rows: Any, columns: Columns) -> tuple[list[Row], list[Dropped]]:
    """Read rows with a text and a label; all others are listed."""
    table = _table(split, rows)
    labels: Iterable[Any] = table.column(columns.label)
    if columns.names:
        number = {name: place for place, name in enumerate(columns.names)}
        labels = [number.get(value, value) if isinstance(value, str) else value for value in labels]
    source_rows: Sequence[Any] = table.column("source_row") if "source_row" in table.columns else range(len(rows))
    found, dropped = [], []
    for text, label, source_row in zip(table.column(columns.text), labels, source_rows, strict=True):
        if not isinstance(source_row, int):
            raise UsageError(
                f"{split} has source_row {source_row!r}, expected whole numbers; mend or remove that column"
            )
        if label is None or label < 0:
            dropped.append(Dropped(split, source_row, NO_LABEL))
        elif not isinstance(text, str) or not text.split():
            dropped.append(Dropped(split, source_row, NO_TEXT))
        else:
            found.append(Row(text, int(label), source_row))
    return found, dropped


def _table(split: str, rows: Any) -> Table:
    import datasets

    if not isinstance(rows, datasets.Dataset):
        raise UsageError(
            f"split {split!r} is a {type(rows).__name__}, expected a datasets.Dataset; open files with "
            "datasets.load_dataset, without streaming"
        )
    return Table(f"split {split!r}", rows, range(len(rows)), {})


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
