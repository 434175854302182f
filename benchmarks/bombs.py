"""Files that ask for too much: the time and memory that each costs before it is refused, or is read in part.

Each runs in a process of its own; ``seconds`` and ``megabytes`` are what it took above importing the package.

    python benchmarks/bombs.py --out benchmarks/results/bombs.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def footprint_json(place: Path):
    """A ``footprint.json`` of 250 MB, all of it empty lists."""
    (place / "footprint.json").write_text("[" + "[]," * 83_000_000 + "[]]")
    from commonweight import Footprint

    return lambda: Footprint.load(place)


def parquet(place: Path):
    """Eight rows out of a Parquet file of 4 million."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    from commonweight.data.table import open_table

    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    with ParquetWriter(place / "rows.parquet", schema) as writer:
        for part in range(40):
            rows = range(part * 100_000, (part + 1) * 100_000)
            text = [f"row {i} says the same as any other row of this very long file" for i in rows]
            writer.write_table(pa.table({"text": text, "label": [i % 2 for i in rows]}, schema))
    return lambda: open_table(str(place / "rows.parquet"), examples=8)


def text(_: Path):
    """A row of 54 MB, of which 128 tokens are read."""
    from commonweight.data.batching import encode
    from commonweight.studies.demo.encoder import make_tokenizer

    tokenizer, row = make_tokenizer(), ("the film is good and the soup was bad . " * 1_350_000,)
    return lambda: encode(tokenizer, [row], [0], [0], accepts={"input_ids"}, max_length=128)


def layers(place: Path):
    """A checkpoint whose configuration asks for a million layers."""
    from commonweight.models import load_model
    from commonweight.studies.demo.encoder import make_start, make_tokenizer, save

    save(make_start(0), make_tokenizer(), place / "model")
    config = json.loads((place / "model" / "config.json").read_text())
    (place / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**6}))
    load_model  # noqa: B018 - imported before the clock starts
    return lambda: load_model(str(place / "model"))


BOMBS = {made.__name__: made for made in (footprint_json, parquet, text, layers)}


def one(name: str) -> None:
    """Read one bomb, and print what it took."""
    from commonweight import CommonweightError

    with tempfile.TemporaryDirectory() as place:
        if os.fork() == 0:  # what is made takes memory too
            BOMBS[name](Path(place))
            os._exit(0)
        os.wait()
        made = BOMBS[name] if name in {"text", "layers"} else _again(name)
        read = made(Path(place))
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            read()
            ended = "read"
        except CommonweightError as error:
            ended = type(error).__name__
        seconds = time.monotonic() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ended": ended, "seconds": round(seconds, 2), "megabytes": round(grown / 1024, 1)}))


def _again(name: str):
    """Read what another process made."""
    from commonweight import Footprint
    from commonweight.data.table import open_table

    if name == "footprint_json":
        return lambda place: lambda: Footprint.load(place)
    return lambda place: lambda: open_table(str(place / "rows.parquet"), examples=8)


def main() -> None:
    """Run every bomb and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--one", choices=BOMBS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.one is not None:
        one(asked.one)
        return
    found = {}
    for name, made in BOMBS.items():
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = {"what": (made.__doc__ or "").rstrip("."), **json.loads(done.stdout.splitlines()[-1])}
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    record = {"python": platform.python_version(), "machine": machine, "bombs": found}
    asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
