"""Threads for many small pieces of work with tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def worker_threads() -> Iterator[ThreadPoolExecutor]:
    """Open as many threads as torch may take, in which torch starts none of its own.

    On pieces in cache that is faster, and where other programs keep the cores busy by far: threads that share an
    operation wait for each other every time.

    Yields:
        The threads.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
