"""Settings that a person chooses: fields of a dataclass with help, bounds and choices.

Python reads them as fields, and the command line makes its options of them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import MISSING, dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "setting"
Many = Literal["repeated", "listed"]
Role = Literal["decides", "grows", "each time"]


@dataclass(frozen=True)
class Setting:
    """What is said of a field beside its type and default."""

    words: str
    """What it sets, for the help."""

    option: str | None = None
    """Its option, where that is not called like the field: ``fisher-type``."""

    off: bool = False
    """Whether the option turns the field off."""

    metavar: str | None = None
    none: str | None = None
    """What None, or no value at all, is called on the command line: ``all``, ``auto``."""

    required: bool = False
    """Whether the command line always asks for it."""

    dangerous: bool = False
    """Whether it lets code of others run."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    """Words it may be, where the type does not name them."""

    typed: bool = True
    """Whether the command line has an option for it."""

    role: Role = "decides"
    """Whether it decides the numbers of a study, may grow while the study goes on, or is said each time anew."""

    many: Many = "repeated"
    """How several values are typed: the option again for each, or all behind it."""

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies within the bounds; nan and infinity do not."""
        return math.isfinite(value) and (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        said = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in said if bound is not None)


def setting(default: Any = MISSING, words: str = "", **said: Any) -> Any:
    """Make a field that can be asked for; see :class:`Setting`."""
    return dataclasses.field(default=default, metadata={KEY: Setting(words, **said)})


@dataclass(frozen=True)
class Kind:
    """The type of a field, taken apart."""

    type: Any
    """Of one value: bool, int, float, str, or a dataclass of settings."""

    is_many: bool = False
    choices: tuple[str, ...] = ()


def settings_of(of: Any) -> Iterator[tuple[dataclasses.Field[Any], Setting | None, Kind]]:
    """List the fields of a dataclass, what is said of each, and its type."""
    hints = get_type_hints(of)
    for field in dataclasses.fields(of):
        said = field.metadata.get(KEY)
        yield field, said, _kind(hints[field.name], said.choices if said else ())


def check_settings(given: Any) -> None:
    """Refuse a value that is out of its bounds or none of its choices."""
    for field, said, kind in settings_of(type(given)):
        value = getattr(given, field.name)
        for each in (value if kind.is_many else (value,)) if value is not None else ():
            if kind.choices and each not in kind.choices:
                expected = f"one of {', '.join(kind.choices)}"
                raise UsageError(f"{{argument}} must be {expected}, got {each!r}", argument=field.name)
            if said is not None and said.bounds and not said.holds(each):
                expected = said.bounds if math.isfinite(each) else f"a finite number, {said.bounds}"
                raise UsageError(f"{{argument}} must be {expected}, got {each!r}", argument=field.name)


def _kind(hint: Any, choices: tuple[str, ...]) -> Kind:
    args = [arg for arg in get_args(hint) if arg is not type(None)]
    if get_origin(hint) in {Union, UnionType} and len(args) == 1:
        return _kind(args[0], choices)
    if get_origin(hint) is Literal:
        return Kind(str, choices=tuple(args))
    if get_origin(hint) is tuple:
        return dataclasses.replace(_kind(args[0], choices), is_many=True)
    return Kind(hint, choices=choices)
