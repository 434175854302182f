"""stdout and stderr of the process: what their encoding lacks is replaced, and what cannot be written is said."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.progress import shown
from commonweight.base.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = {"–": "-", "—": "-", "─": "-", "…": "...", "·": "|", "×": "x", "²": "2", "≥": ">=", "≤": "<="}
"""How signs of our own texts look where there is only ASCII."""

GRACE = 8.0
"""Seconds after SIGTERM in which the process ends by itself, or else is ended; what it writes is whole or not there."""

INTERRUPTED = 130
"""Exit code."""

BARS_OF_OTHERS = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Keep Hugging Face libraries, which are imported later, from showing progress."""

_is_quiet = False


def prepare() -> bool:
    """Make the streams of this process fit to carry a result, and let SIGTERM end it as Ctrl-C does."""
    codecs.register_error("commonweight", _plain)
    signal.signal(signal.SIGTERM, _terminate)
    _end_in_time()
    if sys.stderr is None:  # type: ignore[unreachable,unused-ignore]
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # type: ignore[unreachable,unused-ignore] # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="commonweight")
    return sys.stdout is not None


def finish(code: int) -> int:
    """Bring the result to its reader before the process ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        abandon()
    except (OSError, ValueError) as error:
        abandon()
        if not code:  # else the failure was met, and said, while the result was being written
            tell(f"error: the result could not be written to stdout: {error}")
        code = code or 1
    return code


def abandon() -> None:
    """Write what is still to come on stdout to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        os.dup2(nowhere, sys.__stdout__.fileno())
    else:
        sys.stdout = os.fdopen(nowhere, "w")


def set_quiet(quiet: bool) -> None:
    """Choose whether anything but results and errors is written."""
    global _is_quiet
    _is_quiet = quiet
    if quiet:
        os.environ.update(BARS_OF_OTHERS)


def note(sentence: str) -> None:
    """Write a line on what goes on, unless quiet."""
    if not _is_quiet:
        tell(sentence)


def tell(sentence: str) -> None:
    """Write a line to stderr, if anybody listens."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(sentence), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Show progress, and send what code of the user's own prints to stderr: stdout is for the result."""
    with contextlib.redirect_stdout(sys.stderr), shown(not _is_quiet):
        yield


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def _end_in_time() -> None:
    """Let SIGTERM end the process though it waits for a call that Python cannot interrupt, such as a large product."""
    told, tell_of = os.pipe()
    os.set_blocking(tell_of, False)
    signal.set_wakeup_fd(tell_of, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(told, 1)[0] != signal.SIGTERM:
            pass
        time.sleep(GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def _terminate(number: int, frame: Any) -> None:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
