"""How differences between models are told: who has what, the first few by name, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_SHOWN = 4


def quoted(names: Iterable[str]) -> str:
    """Join names.

    Args:
        names: The names.

    Returns:
        Them in quotes, joined by "and".

    Example:
        >>> quoted(["a", "b"])
        "'a' and 'b'"
    """
    return " and ".join(map(repr, names))


def by_value(values: Mapping[str, Any], absent: str = "not stated") -> str:
    """Say who has which value.

    Args:
        values: Value by name of the model; None where it has none.
        absent: What None is called.

    Returns:
        Every value once, with those that have it.

    Example:
        >>> by_value({"a": 2, "b": 3, "c": 2})
        "2 in 'a' and 'c', 3 in 'b'"
    """
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(absent if value is None else str(value), []).append(name)
    return ", ".join(f"{value} in {quoted(names)}" for value, names in groups.items())


def differ(values: Mapping[str, Any]) -> bool:
    """Tell whether values are not all equal.

    Args:
        values: Value by name.

    Returns:
        Whether two differ.
    """
    return any(value != next(iter(values.values())) for value in values.values())


def first_of(differences: Sequence[str]) -> str:
    """Count differences and show the first.

    Args:
        differences: One sentence part each, at least one.

    Returns:
        The number and at most four of them.

    Example:
        >>> first_of(["a", "b"])
        '2 differences: a; b'
    """
    shown = "; ".join(differences[:MOST_SHOWN])
    if len(differences) > MOST_SHOWN:
        return f"{len(differences)} differences, the first {MOST_SHOWN}: {shown}"
    return f"{len(differences)} difference{'' if len(differences) == 1 else 's'}: {shown}"


def some(names: Sequence[str]) -> str:
    """List names, not too many.

    Args:
        names: The names.

    Returns:
        At most four, and how many there are in all.
    """
    shown = ", ".join(names[:MOST_SHOWN])
    return shown if len(names) <= MOST_SHOWN else f"{shown}, … ({len(names)} in all)"
