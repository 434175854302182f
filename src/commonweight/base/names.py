"""The end of an error message about a name that does not exist: what there is, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_SHOWN = 12


def among(asked: str, names: Iterable[str]) -> str:
    """List the names there are and guess which one was meant: a clause to put behind a semicolon."""
    known = list(names)
    listed = ", ".join(map(repr, known[:MOST_SHOWN])) or "none"
    if len(known) > MOST_SHOWN:
        listed += f", … ({len(known)} in all)"
    close = difflib.get_close_matches(asked, known, n=1)
    return f"there are {listed}" + (f"; did you mean {close[0]!r}?" if close else "")


def nearby(asked: str) -> str | None:
    """Find the file or folder that a path was probably meant to be."""
    return next(iter(all_nearby(asked, 0.75)), None)


def all_nearby(asked: str, cutoff: float, *, folders_only: bool = False) -> list[str]:
    """List the files and folders whose names are like that of a path, the likest first."""
    path = Path(asked).expanduser()
    try:
        entries = [] if "@" in asked else list(path.parent.iterdir())
    except OSError:
        return []
    names = [entry.name for entry in entries if not folders_only or entry.is_dir()]
    return [str(path.with_name(name)) for name in difflib.get_close_matches(path.name, names, cutoff=cutoff)]


MOST_DIFFERENCES = 4


def quoted(names: Iterable[str]) -> str:
    """Put names in quotes and join them by "and"."""
    return " and ".join(map(repr, names))


def by_value(values: Mapping[str, Any], absent: str = "not stated") -> str:
    """Say who has which value: ``2 in 'a' and 'c', 3 in 'b'``."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(absent if value is None else str(value), []).append(name)
    return ", ".join(f"{value} in {quoted(names)}" for value, names in groups.items())


def differ(values: Mapping[str, Any]) -> bool:
    """Tell whether values are not all equal."""
    return any(value != next(iter(values.values())) for value in values.values())


def first_of(differences: Sequence[str]) -> str:
    """Count differences and show the first four."""
    shown = "; ".join(differences[:MOST_DIFFERENCES])
    if len(differences) > MOST_DIFFERENCES:
        return f"{len(differences)} differences, the first {MOST_DIFFERENCES}: {shown}"
    return f"{len(differences)} difference{'' if len(differences) == 1 else 's'}: {shown}"


def some(names: Sequence[str]) -> str:
    """List names, not too many."""
    shown = ", ".join(names[:MOST_DIFFERENCES])
    return shown if len(names) <= MOST_DIFFERENCES else f"{shown}, … ({len(names)} in all)"


V = TypeVar("V")


class Named(Mapping[str, V]):
    """A mapping that is read only; its error says what the names are names of, and which was probably meant."""

    def __init__(self, what: str, values: Mapping[str, V]) -> None:
        self._what = what
        self._values = values

    def __getitem__(self, name: str) -> V:
        if name not in self._values:
            raise KeyError(f"no {self._what} {name!r} in this table; {among(str(name), self._values)}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)
