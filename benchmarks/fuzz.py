"""Damages small files of every kind, a great many times, and counts what comes of it.

The kinds, their readers and the damage are those of ``tests/fuzz``, which does little of the same in every test run.
Writes per kind: mutations, read as before, refused with an error of the package, read as other data under another
recorded hash, and what must be none: other results in silence, and errors of any other kind.

    python benchmarks/fuzz.py --mutations 1000000 --out benchmarks/results/fuzz.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

PARTS = 20
"""Runs of each kind, each with a seed of its own."""


def one(name: str, seed: int, count: int) -> tuple[str, dict, float]:
    """Damage the files of one kind."""
    from fuzz.subjects import fuzz

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(name, Path(place) / "files", count, seed)
    return name, vars(found), time.monotonic() - start


def main() -> None:
    """Damage, count, write."""
    from fuzz.subjects import SUBJECTS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=1, help="of the first run of each kind")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    shares = sum(subject.share for subject in SUBJECTS.values())
    jobs = [
        (name, asked.seed + part, max(1, round(asked.mutations * SUBJECTS[name].share / shares / PARTS)))
        for part, name in product(range(PARTS), SUBJECTS)
    ]
    whole: dict[str, dict] = {}
    with ProcessPoolExecutor(asked.processes) as pool:
        for name, counts, seconds in pool.map(one, *zip(*jobs, strict=True)):
            former = whole.setdefault(name, {"seconds": 0.0, **{key: type(value)() for key, value in counts.items()}})
            for key, value in counts.items():
                former[key] += value
            former["seconds"] = round(former["seconds"] + seconds, 1)
            record = {
                "asked": {"mutations": asked.mutations, "seed": asked.seed, "parts": PARTS},
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} processors",
                "mutations": sum(each["mutations"] for each in whole.values()),
                "silent": sum(len(each["silent"]) for each in whole.values()),
                "raw": sum(len(each["raw"]) for each in whole.values()),
                "kinds": whole,
            }
            asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
