"""Values by name, which cannot be changed, and which say what was probably meant by a name they do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from commonweight.data.suggest import among

V = TypeVar("V")


class Named(Mapping[str, V]):
    """A mapping that is read only.

    Args:
        what: What the names are names of, for the error.
        values: The values by name.

    Example:
        >>> Named("layer", {"body": 1, "head": 2})["haed"]
        Traceback (most recent call last):
        ...
        KeyError: "no layer 'haed' in this table; there are 'body', 'head'; did you mean 'head'?"
    """

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
