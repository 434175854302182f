"""Every error of the package, in one small tree.

``CommonweightError``
├── ``UsageError``            an argument, option or file is not what was asked for (exit code 2)
├── ``MeasurementError``      the model or its numbers cannot be measured (exit code 1)
├── ``NotComparableError``    two footprints describe different things (exit code 3)
└── ``IntegrityError``        a file is damaged, incomplete or of another format (exit code 4)

Each message says what was expected, what came, and the remedy.
"""

from __future__ import annotations


class CommonweightError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


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
