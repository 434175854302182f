"""Which processes work in a run folder: a lock on the folder itself, which leaves no file behind."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.base.errors import UsageError
from commonweight.base.folders import clear_run
from commonweight.base.team import refuse_several

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commonweight.base.text import Note


@dataclass(frozen=True)
class Hold:
    """A run folder this process works in."""

    alone: bool
    """Whether no other process works in it; False where the system has no locks."""

    busy: bool
    """Whether another process works in it; False where the system has no locks."""

    descriptor: int

    def share(self) -> None:
        """Let other processes work in the folder too; until then they wait."""
        if self.alone:
            import fcntl

            fcntl.flock(self.descriptor, fcntl.LOCK_SH)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Hold]:
    """Hold a run folder as long as this process works in it; it is made if it is not there."""
    refuse_several()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error}; choose another folder") from error
    try:
        import fcntl
    except ImportError:  # Windows
        yield Hold(alone=False, busy=False, descriptor=-1)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        alone = busy = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            busy = True
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:  # some network file systems have no locks
            pass
        yield Hold(alone, busy, descriptor)
    finally:
        os.close(descriptor)


def refuse_busy(folder: Path, hold: Hold) -> None:
    """Refuse a folder that another process works in."""
    if hold.busy:
        raise UsageError(f"another process works in {folder}; wait for it, or choose another run folder")


@contextlib.contextmanager
def held_alone(folder: Path, note: Note) -> Iterator[None]:
    """Hold a run folder that no other process works in; one that comes later is refused at once and does not wait."""
    with held(folder) as hold:
        refuse_busy(folder, hold)
        clear_run(folder, note)
        hold.share()
        yield


@contextlib.contextmanager
def waited_for(folder: Path) -> Iterator[None]:
    """Hold a folder of a run, which is made if it is not there, once whoever works in it is done or dead."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
