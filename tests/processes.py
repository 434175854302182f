"""Several processes of a group on this machine, with the variables of torchrun; what they import is there when forked.

A server without threads imports once; each process is a fork of it, which takes a few milliseconds.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace

from commonweight.base import team
from commonweight.cli.main import main

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "pytest",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "commonweight.diagonal_fisher.measure",
    "commonweight.cli.compare",
    "commonweight.cli.localise",
    "commonweight.cli.merge_check",
    "commonweight.cli.shortcuts",
])


def started(world, function, *arguments):
    """Call a function with these arguments in every process of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    said = Path(mkdtemp())
    processes = []
    for rank in range(world):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        streams = [said / f"{rank}.{name}" for name in ("out", "err")]
        process = CONTEXT.Process(target=_call, args=(environment, streams, function, arguments))
        process.start()
        process.streams = streams
        processes.append(process)
    return processes


def ended(processes, seconds=60):
    """Wait for processes, none of which may hang; give code, stdout and stderr of each."""
    try:
        for process in processes:
            process.join(seconds)
            assert process.exitcode is not None, f"a process hangs: {process.streams[1].read_text()}"
    finally:
        for process in processes:
            process.kill()
    found = []
    for process in processes:
        out, err = (stream.read_text() for stream in process.streams)
        found.append(SimpleNamespace(code=process.exitcode, out=out, err=err))
    rmtree(processes[0].streams[0].parent)
    return found


def command(*words):
    """Run a command line."""
    sys.argv = ["commonweight", *map(str, words)]
    main()


def impatient_command(*words):
    """Run a command line to which the first process does not come."""
    team.MEETING = timedelta(seconds=1)
    if os.environ["RANK"] != "0":
        command(*words)


def _call(environment, streams, function, arguments):
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), descriptor)
    function(*arguments)
