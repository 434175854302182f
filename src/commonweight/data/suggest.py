"""The end of an error message about a name that does not exist: what there is, and what was probably meant."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_SHOWN = 12


def among(asked: str, names: Iterable[str]) -> str:
    """List the names there are and guess which one was meant.

    Args:
        asked: The name that does not exist.
        names: Those that do.

    Returns:
        A clause to put behind a semicolon.

    Example:
        >>> among("sentense", ["label", "sentence"])
        "there are 'label', 'sentence'; did you mean 'sentence'?"
    """
    known = list(names)
    listed = ", ".join(map(repr, known[:MOST_SHOWN])) or "none"
    if len(known) > MOST_SHOWN:
        listed += f", … ({len(known)} in all)"
    close = difflib.get_close_matches(asked, known, n=1)
    return f"there are {listed}" + (f"; did you mean {close[0]!r}?" if close else "")


def nearby(asked: str) -> str | None:
    """Find the file or folder that a path was probably meant to be.

    Args:
        asked: A path that does not exist, or the id of something elsewhere.

    Returns:
        The path of the entry of the same folder whose name is closest; None if there is no close one, or if ``asked``
        names a revision and is therefore no path.
    """
    if "@" in asked:
        return None
    path = Path(asked).expanduser()
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return str(path.with_name(close[0])) if close and path.name else None
