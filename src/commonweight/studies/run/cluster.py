"""Items of a run on Dask: on processes of this machine, or on a cluster that is there already.

An item is a call of a function of a module, writes into the run folder, and does nothing where its result is there. So
an item of a worker that dies is run again by Dask, and the same command goes on after a client that died.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.team import team_here
from commonweight.base.text import Note, silent
from commonweight.base.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

GPU = "GPU"
"""Resource of which an item takes one, where workers say that they have it (``dask worker --resources GPU=1``)."""

PACKAGE = "commonweight"
LOCAL = re.compile(r"local(?::(?P<workers>[1-9]\d*))?")
LOOPBACK = "127.0.0.1:0"
"""Where the scheduler of this machine shows its state: any free port, and no other machine sees it."""

ONE_AT_A_TIME = threading.Lock()
"""Of a worker process with several threads: items share the last model that was loaded, and put hooks on it."""

REACHED_WITHIN = "20s"
ADDRESS = re.compile(r"\w+://.+")


def check_scheduler(scheduler: str | None) -> None:
    """Refuse what names no scheduler, before anything is written."""
    if scheduler is None or LOCAL.fullmatch(scheduler) or ADDRESS.fullmatch(scheduler):
        return
    try:
        found = json.loads(Path(scheduler).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or "address" not in found:
        expected = "local, local:N, an address such as tcp://host:8786, or a scheduler file"
        raise UsageError(f"{{argument}} must be {expected}, got {scheduler!r}", argument="scheduler")


def do_all(scheduler: str, items: Mapping[str, Callable[[], Any]], note: Note = silent) -> None:
    """Do all items, in any order, on the workers of a scheduler; the first error ends it."""
    if not items:
        return
    check_scheduler(scheduler)
    if (size := team_here().size) > 1:
        raise UsageError(
            f"{{argument}} shares the items, and {size} processes were started to share each of them: start one "
            "process, or leave the scheduler out",
            argument="scheduler",
        )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its errors reach us as exceptions
    with _client(scheduler, len(items)) as (client, threads):
        from dask.distributed import KilledWorker, as_completed

        _check_versions(client)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        note(f"{len(items)} items for {len(workers)} workers of {client.scheduler.address}")
        needs = {GPU: 1} if any(worker["resources"].get(GPU) for worker in workers) else None
        futures = {
            client.submit(_do, item, threads, key=f"{name}-{os.urandom(4).hex()}", pure=False, resources=needs): name
            for name, item in items.items()
        }
        for done, future in enumerate(as_completed(futures), 1):
            try:
                future.result()
            except KilledWorker as error:
                raise MeasurementError(
                    f"{futures[future]}: every worker that tried it died ({error}); look into the workers' logs, they "
                    "may lack memory"
                ) from None
            note(f"{futures[future]}: done, {done} of {len(items)}")


def _check_versions(client: Any) -> None:
    """Refuse workers without this version of the package: they could not even read an item."""
    for address, found in client.get_versions(packages=[PACKAGE])["workers"].items():
        version = found["packages"].get(PACKAGE)
        if version != __version__:
            raise UsageError(
                f"the worker {address} has {PACKAGE} {version or 'not installed'}, expected {__version__} as here; "
                "install it there"
            )


def _do(item: Callable[[], Any], threads: int | None) -> None:
    """Do an item in a worker; what it gives back stays there."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with ONE_AT_A_TIME:
        item()


@contextmanager
def _client(scheduler: str, items: int) -> Iterator[tuple[Any, int | None]]:
    """Connect to a scheduler, or start one with workers; with the threads that torch may take in each, if known."""
    try:
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{{argument}} needs {error.name}: pip install 'commonweight[cluster]'", argument="scheduler"
        ) from None
    if local := LOCAL.fullmatch(scheduler):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(int(local["workers"] or cores), items)
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=LOOPBACK,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client, max(1, cores // workers)
        return
    try:
        if ADDRESS.fullmatch(scheduler):
            client = Client(scheduler, timeout=REACHED_WITHIN)
        else:
            client = Client(scheduler_file=scheduler, timeout=REACHED_WITHIN)
    except (OSError, ValueError) as error:
        raise UsageError(f"{{argument}} {scheduler} cannot be reached: {error}", argument="scheduler") from None
    with client:
        yield client, None
