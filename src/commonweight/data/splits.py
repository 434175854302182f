"""A text classification data set with its splits: files in a folder, a saved ``DatasetDict``, or a Hugging Face id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.names import nearby
from commonweight.data import columns
from commonweight.data.files import FILE_FORMATS, read_file
from commonweight.data.table import HUB_ID, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAIN = ("train",)
DEVELOPMENT = ("validation", "dev", "valid", "val")
TEST = ("test",)
SEEN = ("train", "validation")
"""The splits whose labels say which classes there are."""


@dataclass(frozen=True)
class Source:
    """Texts with labels, in splits."""

    splits: Mapping[str, Any]
    """``train`` and, where there are any, ``validation`` and ``test``; each a ``datasets.Dataset``."""

    text: str
    """Column of texts."""

    label: str
    """Column of class numbers; None, or a negative number of the data's own, where there is no label."""

    classes: tuple[str, ...]
    """Names of the classes."""


def open_source(data: str, *, text_column: str | None = None, label_column: str | None = None) -> Source:
    """Open a data set with splits."""
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
        return {name: read_file(file) for name, file in _files(path).items()}
    close = nearby(data)
    if path.exists() or HUB_ID.fullmatch(data) is None or close is not None or _is_local(data):
        meant = ", a file" if path.is_file() else "" if close is None else f"; did you mean {close!r}?"
        raise UsageError(f"expected a folder with train and dev files, or an id org/name, got {data!r}{meant}")
    return hub_splits(data)


def hub_splits(data: str) -> dict[str, Any]:
    """Load a data set by its Hugging Face id."""
    import datasets

    match = HUB_ID.fullmatch(data)
    if match is None:
        raise UsageError(
            f"{data!r} is neither an existing file or folder nor an id of the form org/name:config@revision"
        )
    try:
        return dict(datasets.load_dataset(match["id"], match["config"], revision=match["revision"]))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{data!r} is no local file or folder, and as a Hugging Face data set it could not be loaded: {error}. "
            "Check the spelling and the network, or give a file or folder"
        ) from error


def _is_local(data: str) -> bool:
    """Tell whether a name that does not exist was meant as a path; one with a revision is an id, as in ``nearby``."""
    first = Path(data).parts[:1]
    in_a_folder = "/" in data and (first in {("data",), ("datasets",)} or Path(*first).is_dir())
    is_file = Path(data).suffix.lower() in FILE_FORMATS
    return data.startswith((".", "/", "~")) or ("@" not in data and (in_a_folder or is_file))


def _files(folder: Path) -> dict[str, Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FILE_FORMATS)
    if not files:
        raise UsageError(f"{folder} holds neither a saved DatasetDict nor files ending in {', '.join(FILE_FORMATS)}")
    found: dict[str, Path] = {}
    for file in files:
        if file.stem not in {*TRAIN, *DEVELOPMENT, *TEST}:
            continue
        if file.stem in found:
            raise UsageError(
                f"{folder} has two files of the split {file.stem}: {found[file.stem].name} and {file.name}; keep one"
            )
        found[file.stem] = file
    return found


def _numbered(data: str, splits: dict[str, Any], text: str, label: str) -> Source:
    import datasets

    for name, rows in splits.items():
        missing = {text, label} - set(rows.column_names)
        if missing:
            raise UsageError(f"the split {name} of {data} has no column {missing.pop()!r}")
    values = {name: _values(rows, label) for name, rows in splits.items()}
    feature = splits["train"].features[label]
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
    else:
        names = _class_names(data, [value for split in SEEN for value in values.get(split, ())])
    if len(names) < 2:
        raise UsageError(f"{data} has one class, {names[0]!r}; a shortcut sets one of two labels")
    return Source(
        {name: _relabelled(rows, label, values[name], names) for name, rows in splits.items()}, text, label, names
    )


def _values(rows: Any, label: str) -> list[Any]:
    """Read labels: names where the column has them, else what is there, truth values as 0 and 1; None where none is."""
    names = getattr(rows.features[label], "names", None)
    values = [int(value) if isinstance(value, bool) else value for value in rows[label]]
    values = [None if isinstance(value, int) and value < 0 else value for value in values]
    return values if names is None else [None if value is None else names[value] for value in values]


def _class_names(data: str, values: list[Any]) -> tuple[str, ...]:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int) for value in known):
        numbers = sorted(set(known))
        if numbers != list(range(len(numbers))):
            raise UsageError(f"labels of {data} must be 0, 1, …; got {', '.join(map(str, numbers[:8]))}")
        return tuple(f"LABEL_{number}" for number in numbers)
    if known and all(isinstance(value, str) for value in known):
        return tuple(sorted(set(known)))
    shown = ", ".join(sorted({repr(value) for value in known})[:8]) or "none at all"
    raise UsageError(f"labels of {data} must be class numbers or names, the same in train and dev; got {shown}")


def _relabelled(rows: Any, label: str, values: list[Any], names: tuple[str, ...]) -> Any:
    """Write labels as class numbers, one that is no class as None; a column that has these classes already stays."""
    import datasets

    if tuple(getattr(rows.features[label], "names", None) or ()) == names:
        return rows
    numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    numbers |= {number: number for number in range(len(names))}
    labels = [numbers.get(value) if isinstance(value, int | str) else None for value in values]
    written = rows.remove_columns(label).add_column(label, labels, feature=datasets.ClassLabel(names=list(names)))
    return written.select_columns(rows.column_names)
