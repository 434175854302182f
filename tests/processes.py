"""Several processes of a group on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace


def started(world, arguments, **more):
    """Start Python with these arguments in every process of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parent
    shared = {
        **os.environ,
        **more,
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def ended(processes, seconds=60):
    """Wait for processes, none of which may hang; give code, stdout and stderr of each."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=seconds)
            found.append(SimpleNamespace(code=process.returncode, out=out, err=err))
    finally:
        for process in processes:
            process.kill()
    return found
