"""Every error of the package, in one small tree.

``CommonweightError``
├── ``UsageError``            an argument, option or file is not what was asked for (exit code 2)
├── ``MeasurementError``      the model or its numbers cannot be measured (exit code 1)
├── ``NotComparableError``    two footprints describe different things (exit code 3)
└── ``IntegrityError``        a file is damaged, incomplete or of another format (exit code 4)

Each message says what was expected, what came, and the remedy. Where it names arguments it holds their places, so that
Python says ``max_length`` and the command line ``--max-length``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class CommonweightError(Exception):
    """Base of all errors raised on purpose by this package.

    Args:
        sentence: What is said; ``{argument}`` stands for the argument's name, ``{name}`` for one of ``values``.
        argument: The argument that the sentence is about; None if it is about none.
        **values: Other arguments that it names, each with the value to pass, or None for the name alone.

    Example:
        >>> error = UsageError("{argument} must be at most 9; or pass {overwrite}", argument="rows", overwrite=True)
        >>> print(error)
        rows must be at most 9; or pass overwrite=True
        >>> error.told(lambda name, value: f"--{name}")
        '--rows must be at most 9; or pass --overwrite'
    """

    exit_code = 1

    def __init__(self, sentence: str, *, argument: str | None = None, **values: object) -> None:
        self.sentence = sentence
        self.argument = argument
        self.values = values
        super().__init__(self.told(in_python))

    def told(self, name: Callable[[str, object], str]) -> str:
        """Say the sentence, with its arguments named by ``name(argument, value)``."""
        found = self.sentence
        if self.argument is not None:
            found = found.replace("{argument}", name(self.argument, None))
        for argument, value in self.values.items():
            found = found.replace(f"{{{argument}}}", name(argument, value))
        return found


def in_python(argument: str, value: object) -> str:
    """Name an argument as Python does."""
    return argument if value is None else f"{argument}={value!r}"


class UsageError(CommonweightError, ValueError):
    """An argument, option or input file is not what was expected."""

    exit_code = 2


class MeasurementError(CommonweightError, RuntimeError):
    """A model, or the numbers that came out of it, cannot be measured exactly."""

    exit_code = 1


class NotComparableError(CommonweightError, ValueError):
    """Two footprints describe different things, so an overlap would mean nothing."""

    exit_code = 3


class IntegrityError(CommonweightError, OSError):
    """A file is damaged, incomplete, or of a format this version does not read."""

    exit_code = 4


def check_kind(word: str, value: object, kind: type, remedy: str) -> None:
    """Refuse an argument that is another kind of thing altogether."""
    if not isinstance(value, kind):
        raise UsageError(f"{word} must be a {kind.__name__}, got {type(value).__name__}; {remedy}")
