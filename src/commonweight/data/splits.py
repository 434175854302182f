"""A text classification data set with its splits: files in a folder, a saved ``DatasetDict``, or a Hugging Face id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.data import columns
from commonweight.data.files import FILE_FORMATS, read_file
from commonweight.data.table import HUB_ID, Table
from commonweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAIN = ("train",)
DEVELOPMENT = ("validation", "dev", "valid", "val")
TEST = ("test",)


@dataclass(frozen=True)
class Source:
    """Texts with labels, in splits."""

    splits: Mapping[str, Any]
    """``train`` and, where there are any, ``validation`` and ``test``; each a ``datasets.Dataset``."""

    text: str
    """Column of texts."""

    label: str
    """Column of class numbers."""

    classes: tuple[str, ...]
    """Names of the classes."""


def open_source(data: str, *, text_column: str | None = None, label_column: str | None = None) -> Source:
    """Open a data set with splits.

    Args:
        data: A folder with files ``train`` and perhaps ``dev`` (or ``validation``) and ``test`` (TSV, CSV, JSONL,
            Parquet), a ``save_to_disk`` folder of a ``DatasetDict``, or a Hugging Face id ``org/name:config@revision``.
        text_column: Column of texts; None takes the obvious one.
        label_column: Column of labels; None takes the obvious one.

    Returns:
        The splits; labels that are names become class numbers, in alphabetic order.

    Raises:
        UsageError: If there is no such data set, no training split, or there are fewer than two classes.
    """
    found = _open(data)
    splits = {
        name: rows
        for name, names in (("train", TRAIN), ("validation", DEVELOPMENT), ("test", TEST))
        if (rows := next((found[split] for split in names if split in found), None)) is not None
    }
    if "train" not in splits:
        raise UsageError(f"{data} has no split train; it has {', '.join(found) or 'none'}")
    table = Table(data, splits["train"], range(len(splits["train"])), {})
    label = columns.label_column(table, label_column)
    (text,) = columns.text_columns(table, (text_column,) if text_column else (), label=label)
    return _numbered(data, splits, text, label)


def _open(data: str) -> dict[str, Any]:
    import datasets

    path = Path(data).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(str(path)))
        files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix.lower() in FILE_FORMATS}
        if not files:
            raise UsageError(f"{path} holds neither a saved DatasetDict nor files ending in {', '.join(FILE_FORMATS)}")
        return {name: read_file(file) for name, file in files.items() if name in (*TRAIN, *DEVELOPMENT, *TEST)}
    match = HUB_ID.fullmatch(data)
    if path.exists() or match is None:
        raise UsageError(f"expected a folder with train and dev files, or an id org/name, got {data!r}")
    try:
        return dict(datasets.load_dataset(match["id"], match["config"], revision=match["revision"]))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{data!r} is no folder, and as a Hugging Face data set it cannot be loaded: {error}"
        ) from error


def _numbered(data: str, splits: dict[str, Any], text: str, label: str) -> Source:
    import datasets

    for name, rows in splits.items():
        missing = {text, label} - set(rows.column_names)
        if missing:
            raise UsageError(f"the split {name} of {data} has no column {missing.pop()!r}")
    feature = splits["train"].features[label]
    if isinstance(feature, datasets.ClassLabel):
        return _checked(data, splits, text, label, tuple(feature.names))
    values = sorted(set(splits["train"][label]))
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        if values != list(range(len(values))):
            raise UsageError(f"labels of {data} must be 0, 1, …; got {', '.join(map(str, values[:8]))}")
        names = tuple(f"LABEL_{value}" for value in values)
    elif values and all(isinstance(value, str) for value in values):
        names = tuple(values)
    else:
        raise UsageError(f"labels of {data} must be class numbers or names, got {values[:3]!r}")
    classes = datasets.ClassLabel(names=list(names))
    return _checked(data, {n: rows.cast_column(label, classes) for n, rows in splits.items()}, text, label, names)


def _checked(data: str, splits: dict[str, Any], text: str, label: str, names: tuple[str, ...]) -> Source:
    if len(names) < 2:
        raise UsageError(f"{data} has one class, {names[0]!r}; a shortcut sets one of two labels")
    return Source(splits, text, label, names)
