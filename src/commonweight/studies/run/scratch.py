"""A folder for the time being, beside a result: it goes with the run, and what a killed run left goes with the next."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from typing import TYPE_CHECKING

from commonweight.studies.run.hold import held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commonweight.base.text import Note


@contextlib.contextmanager
def scratch(result: Path, note: Note) -> Iterator[Path]:
    """Make a folder beside a result, ``.NAME.<32 hexadecimal digits>.steps``, and delete it afterwards."""
    # While a run works in one it holds a lock on it, which ends with the process however it ends. So one without a lock
    # is of a dead run and is deleted; where the system has no locks it is named.
    _clear(result, note)
    unique = f".{result.name}.{uuid.uuid4().hex}"
    # It gets its name once it is locked: until then another run would take it for a dead one's.
    making, place = result.with_name(f"{unique}.making"), result.with_name(f"{unique}.steps")
    with held(making) as hold:
        hold.share()
        making.rename(place)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _clear(result: Path, note: Note) -> None:
    pattern = re.compile(rf"\.{re.escape(result.name)}\.[0-9a-f]{{32}}\.steps")
    beside = sorted(result.parent.iterdir()) if result.parent.is_dir() else []
    for place in beside:
        if not pattern.fullmatch(place.name) or place.is_symlink() or not place.is_dir():
            continue
        with held(place) as hold:
            if hold.alone:
                shutil.rmtree(place, ignore_errors=True)
                note(f"{place} was left by a run that was killed, and is deleted")
            elif not hold.busy:
                note(
                    f"{place} is of a run that was killed, or of one at work, which cannot be told on this file "
                    "system; delete it if none is at work"
                )
