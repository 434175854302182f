"""Progress on stderr: every loop that may take seconds says what it does, how fast, and how long it still takes.

A loop goes through :func:`track` or counts with :func:`steps`. Nothing is shown until somebody asks with
:func:`shown`: the command line does, and ``fisher(..., progress=True)``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from commonweight.base.text import printable

T = TypeVar("T")

DELAY = 2.0
"""Seconds before a loop shows anything: a short one shows nothing."""

EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""

_is_shown: ContextVar[bool] = ContextVar("is_shown", default=False)
_within: ContextVar[tuple[str, ...]] = ContextVar("within", default=())


@contextmanager
def shown(show: bool = True) -> Iterator[None]:
    """Show the progress of all loops inside."""
    token = _is_shown.set(show)
    try:
        yield
    finally:
        _is_shown.reset(token)


def is_shown() -> bool:
    """Tell whether progress is shown."""
    return _is_shown.get()


@contextmanager
def part(label: str) -> Iterator[None]:
    """Name what the loops inside belong to: ``model 2 of 3``."""
    token = _within.set((*_within.get(), label))
    try:
        yield
    finally:
        _within.reset(token)


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "batch") -> Iterator[T]:
    """Go through items and show how far it has come."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with steps(label, total, unit) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def steps(label: str, total: int | None, unit: str) -> Iterator[Callable[..., Any]]:
    """Count what is done by calling what this gives, ``advance(n=1)``."""
    if not is_shown():
        yield lambda _=1: None
        return
    from tqdm import tqdm

    named = printable(", ".join([*_within.get(), label]))
    lines: dict[str, Any] = (
        {} if sys.stderr.isatty() else {"mininterval": EVERY, "maxinterval": EVERY, "ncols": 100, "ascii": True}
    )

    class Bar(tqdm):  # type: ignore[type-arg,unused-ignore]
        """A bar on a terminal; in files and pipes a line every few seconds."""

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if not lines:
                super().display(msg, pos)
            elif msg != "":
                self.fp.write(f"{str(self).strip()}\n")

    with Bar(
        total=total,
        desc=named,
        unit=f" {unit}",
        unit_scale=unit == "weight",
        file=sys.stderr,
        delay=DELAY,
        leave=False,
        **lines,
    ) as bar:
        yield bar.update
