"""The progress bars of ``datasets``: they appear on stderr whenever rows are mapped or saved, asked for or not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def without_bars(*, shown: bool = False) -> Iterator[None]:
    """Keep ``datasets`` from showing progress bars.

    Args:
        shown: Leave them as they are.

    Yields:
        Nothing; on leaving bars are as they were.
    """
    import datasets

    if shown or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
