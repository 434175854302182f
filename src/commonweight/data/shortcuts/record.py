"""A finished data set with its record: what was asked for, where the rows come from, what was left out."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.folders import Kind, replacing
from commonweight.base.records import Format, folder_record, sealed
from commonweight.data.shortcuts.source import Dropped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commonweight.data.shortcuts.rules import Mixture
    from commonweight.data.shortcuts.source import Columns, Row

FORMAT = "commonweight-shortcut-data"

# Settings, origin, splits (rows, kinds, labels, constant), dropped.
VERSION = 3

RECORD = "shortcut.json"

DATA = Format(FORMAT, (VERSION,), "shortcut data", "build the data again")

_KEYS = {"settings", "origin", "splits", "dropped"}


@dataclass(frozen=True)
class ShortcutData:
    """Five splits and how they were made.

    ``data["train"]``, ``data.splits["train"]`` and, after :meth:`save`, ``datasets.load_from_disk(folder)["train"]``
    are the same rows.
    """

    splits: Any
    """A ``datasets.DatasetDict``: ``train``, ``synthetic_dev``, ``original_dev``, ``synthetic_test`` and
    ``original_test``."""

    record: Mapping[str, Any] = field(repr=False)
    """Plain JSON values. ``settings``; ``origin`` and ``splits`` by split: where the rows come from, how many there are
    by kind and label, and ``constant``, the accuracy of always saying the most frequent label; ``dropped``."""

    def __getitem__(self, split: str) -> Any:
        return self.splits[split]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Rows that are in no split, or not in a synthetic one, and why."""
        return tuple(Dropped(**each) for each in self.record["dropped"])

    def save(self, folder: str | Path) -> Path:
        """Write ``DatasetDict.save_to_disk`` and ``shortcut.json`` beside it.

        Returns:
            The folder.

        Raises:
            UsageError: If there is something in the folder.
        """
        folder = Path(folder).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not empty; give another folder, or remove it first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(sealed(self.record), indent=1, ensure_ascii=False, allow_nan=False)
        with replacing(folder.resolve(), Kind("shortcut data set", RECORD)) as beside, without_bars():
            self.splits.save_to_disk(str(beside))
            (beside / RECORD).write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ShortcutData:
        """Read a folder written by :meth:`save`.

        Returns:
            The data and their record.

        Raises:
            UsageError: If there is no such folder.
            IntegrityError: If the record is missing, damaged, of another format or version, or does not fit the data.
        """
        import datasets

        folder = Path(folder).expanduser()
        record = folder_record(folder, RECORD, DATA, _KEYS)
        try:
            splits = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise IntegrityError(f"the data set in {folder} cannot be read: {error}") from error
        rows = {split: len(splits[split]) for split in splits} if isinstance(splits, datasets.DatasetDict) else {}
        if rows != {split: counts["rows"] for split, counts in record["splits"].items()}:
            raise IntegrityError(
                f"{folder} holds {rows or 'one split'}, and its {RECORD} says otherwise; build it again"
            )
        return cls(splits, record)


def finish(
    mixture: Mixture,
    settings: Mapping[str, Any],
    origin: Mapping[str, str],
    splits: Mapping[str, Sequence[Row]],
    columns: Columns,
    dropped: Sequence[Dropped] = (),
) -> ShortcutData:
    """Turn rows into a ``DatasetDict``, and write down how they were made."""
    import datasets

    rules = [
        {
            "code": rule.code,
            "name": rule.name,
            "weight": weight,
            "labels": {str(label): rule.probability(label) for label in rule.labels},
            "chance": rule.chance,
        }
        for rule, weight in zip(mixture.parts, mixture.weights, strict=True)
    ]
    asked = {"shortcut": mixture.code, "rules": rules, "chance": mixture.chance, "markers": asdict(mixture.markers)}
    written = {
        split: columns.write(rows, f"{split} of shortcut {mixture.code}: {origin[split]}")
        for split, rows in splits.items()
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "settings": {**asked, **settings},
        "origin": dict(origin),
        "splits": {split: count(rows) for split, rows in splits.items()},
        "dropped": [asdict(each) for each in dropped],
    }
    return ShortcutData(datasets.DatasetDict(written), record)


def count(rows: Sequence[Row]) -> dict[str, Any]:
    """Count rows by kind and label."""
    labels = Counter(row.label for row in rows)
    kinds = {
        kind: {str(label): n for label, n in sorted(Counter(row.label for row in rows if row.kind == kind).items())}
        for kind in dict.fromkeys(row.kind for row in rows)
    }
    return {
        "rows": len(rows),
        "kinds": kinds,
        "labels": {str(label): labels[label] for label in sorted(labels)},
        "constant": max(labels.values()) / len(rows) if rows else None,
    }


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep ``datasets`` from showing progress bars."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
