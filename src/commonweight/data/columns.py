"""Which columns hold the text and the labels, and what the labels say in the model's own numbering."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import UsageError
from commonweight.base.names import among

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from commonweight.data.table import Table

LABEL_NAMES = ("label", "labels")
TEXT_NAME = "text"
NAMELESS = re.compile(r"LABEL_\d+")
"""What a Hugging Face model calls a class that was given no name."""


def label_column(table: Table, asked: str | None = None) -> str:
    """Find the column of labels."""
    if asked is not None:
        return existing(table, asked, "label_column")
    found = [name for name in LABEL_NAMES if name in table.columns]
    if len(found) != 1:
        raise UsageError(
            f"{table.name} has {'both' if found else 'neither'} 'label' {'and' if found else 'nor'} 'labels'; "
            f"name the column with {{label_column}}: {among('label', table.columns)}",
            label_column=None,
        )
    return found[0]


def text_columns(table: Table, asked: Sequence[str] = (), *, label: str | None = None) -> tuple[str, ...]:
    """Find the column of texts, or the two columns of a pair."""
    if len(asked) > 2:
        got = f"got {len(asked)}: {', '.join(asked)}"
        raise UsageError(f"{{argument}} may be given once, or twice for pairs; {got}", argument="text_column")
    if asked:
        return tuple(existing(table, name, "text_column") for name in asked)
    strings = [
        name
        for name, feature in table.rows.features.items()
        if getattr(feature, "dtype", None) in {"string", "large_string"} and name != label
    ]
    if len(strings) == 1:
        return (strings[0],)
    if TEXT_NAME in strings:
        return (TEXT_NAME,)
    raise UsageError(
        f"{table.name} has {len(strings)} columns of strings ({', '.join(map(repr, strings)) or 'none'})"
        f"{'' if label is None else f' beside its labels in {label!r}'}; name the text with {{text_column}}: "
        f"{among(TEXT_NAME, table.columns)}",
        text_column=None,
    )


def texts(table: Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Read the texts."""
    for name in columns:
        for row, value in zip(table.source_rows, table.column(name), strict=True):
            if not isinstance(value, str):
                raise UsageError(
                    f"row {row} of {table.name} has {_what(value)} in column {name!r}, expected a string; correct or "
                    "remove the row, or name another column with {text_column}",
                    text_column=None,
                )
    return list(zip(*(table.column(name) for name in columns), strict=True))


def class_labels(
    table: Table, column: str, *, classes: int | None = None, label2id: Mapping[str, int] | None = None
) -> list[int]:
    """Read class labels in the model's numbering."""
    # Whole numbers are taken as they are. Names, and numbers whose data set names them (``ClassLabel``), go through the
    # model's ``label2id``: two data sets may number the same classes differently. Numbers with names are taken as they
    # are only where the model's own names say nothing (``LABEL_0``).
    values = table.column(column)
    known = {name.casefold(): number for name, number in (label2id or {}).items()}
    names = getattr(table.rows.features[column], "names", None)
    if names and any(name.casefold() not in known for name in names):
        _check_nameless(table, column, names, label2id or {})
    elif names:
        values = [value if value is None or value < 0 else names[value] for value in values]
    labels: list[int] = []
    for row, value in zip(table.source_rows, values, strict=True):
        where = f"row {row} of {table.name} has {_what(value)} in column {column!r}"
        if isinstance(value, str) and value.casefold() in known:
            labels.append(known[value.casefold()])
            continue
        if isinstance(value, str) and not value.strip().isdigit():
            raise UsageError(
                f"{where}; the model's classes are {', '.join(map(repr, label2id or {})) or 'not named'}. Write "
                "numbers into the column, or set label2id in the model's config.json"
            )
        number = _number(value)
        if not math.isfinite(number):
            raise UsageError(f"{where}, expected a class; correct or remove the row")
        if number != int(number):
            raise UsageError(f"{where}, expected a whole number; for regression use a model whose problem_type says so")
        if number < 0 or (classes is not None and number >= classes):
            allowed = f"0..{classes - 1}" if classes is not None else "0 or above"
            remedy = "correct or remove the row, or name another column with {label_column}"
            if number == -1:
                remedy = "-1 often marks a split whose labels are withheld: choose another {split}"
            raise UsageError(f"{where}, expected a class in {allowed}; {remedy}", split=None, label_column=None)
        labels.append(int(number))
    return labels


def _check_nameless(table: Table, column: str, names: Sequence[str], label2id: Mapping[str, int]) -> None:
    if all(NAMELESS.fullmatch(name) for name in label2id):
        return
    stranger = next(name for name in names if name.casefold() not in {known.casefold() for known in label2id})
    raise UsageError(
        f"column {column!r} of {table.name} has the classes {', '.join(map(repr, names))}, and the model knows "
        f"{', '.join(map(repr, label2id))}: no {stranger!r} among them. Rename the classes of the data, or set "
        "label2id in the model's config.json"
    )


def numbers(table: Table, column: str) -> list[Any]:
    """Read a column of numbers, of nested lists of numbers, or of images."""
    import datasets

    values = table.column(column)
    is_image = isinstance(table.rows.features[column], datasets.Image)
    for row, value in zip(table.source_rows, values, strict=True):
        bad = _what(value) if is_image and value is None else None if is_image else _first_bad(value)
        if bad is not None:
            raise UsageError(
                f"row {row} of {table.name} has {bad} in column {column!r}, expected finite numbers; correct or remove "
                "the row"
            )
    return [_pixels(value) for value in values] if is_image else values


def _pixels(image: Any) -> Any:
    import numpy as np

    grey = image.mode in {"1", "L"}
    pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _first_bad(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return next((bad for part in value if (bad := _first_bad(part)) is not None), None)
    return None if not isinstance(value, str) and math.isfinite(_number(value)) else _what(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _what(value: Any) -> str:
    if value is None:
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}…"


def existing(table: Table, name: str, argument: str) -> str:
    """Check that a table has a column."""
    if name not in table.columns:
        what = f"{name!r} is no column of {table.name}; {among(name, table.columns)}"
        raise UsageError(f"{{argument}} {what}", argument=argument)
    return name
