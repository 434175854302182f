"""Time and memory of overlaps with folds, against raw overlaps, against measuring, and against reading the files.

    python benchmarks/overlap.py --work runs/benchmark-overlap --out benchmarks/results/overlap.json

Contenders run in turn in one process, round after round; a figure is the median over the rounds, a ratio the median of
the ratios within a round. Parts, chosen by ``--parts``:

measured   two Fishers of a 22 M encoder in memory: raw and folded overlap, beside measuring 256 rows
generated  drawn Fishers with 8 folds on disk, folds in bfloat16: folded and raw overlaps from a cold cache, beside
           reading the same files and hashing them, and beside adding the last one to a table of the others
tensors    two Fishers of many small tensors: time must be linear in their number
busy       raw and folded overlaps in memory, while as many other processes as there are cores keep these busy
memory     resident memory of a folded overlap above that of its footprints, in a fresh process

Files leave the cache by ``posix_fadvise`` before every cold call. ``--sizes`` and ``--footprints`` choose the generated
cases. A result file that is there already keeps the parts that are not run again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from fisher import CASES, bert, interleave, ratios

import commonweight
from commonweight import Footprint, overlap
from commonweight.footprints.files import _HASHED
from commonweight.footprints.folds import FOLD_MAP, shortened
from commonweight.footprints.footprint import Fold

FOLDS = 8
USED = 0.1
"""Share of the rows of an embedding that a fold of a drawn Fisher uses."""


def encoder(million: int) -> dict[str, tuple[int, ...]]:
    """Shapes of an encoder of about 5, 22, 110 million or a billion weights."""
    hidden, layers, vocabulary = {
        5: (128, 4, 32000),
        22: (384, 6, 30522),
        110: (768, 12, 30522),
        1000: (2048, 18, 32000),
    }[million]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.weight": (vocabulary, hidden)}
    for layer in range(layers):
        inner = {"query": (hidden, hidden), "key": (hidden, hidden), "value": (hidden, hidden), "out": (hidden, hidden)}
        inner |= {"up": (4 * hidden, hidden), "down": (hidden, 4 * hidden)}
        for name, shape in inner.items():
            shapes[f"layer.{layer}.{name}.weight"] = shape
            shapes[f"layer.{layer}.{name}.bias"] = shape[:1]
    return shapes


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Footprint:
    """A Fisher of exponential entries; of an embedding each fold uses a tenth of the rows."""
    generator = torch.Generator().manual_seed(seed)
    folds = []
    for _ in range(FOLDS):
        tensors = {name: torch.empty(shape).exponential_(generator=generator) for name, shape in shapes.items()}
        for name in shapes:
            if name.startswith("embeddings"):
                tensors[name] *= torch.rand(shapes[name][0], 1, generator=generator) < USED
        folds.append(Fold(32, tensors))
    whole = {name: torch.stack([fold.tensors[name] for fold in folds]).mean(0) for name in shapes}
    facts = {"fisher_type": "empirical", "folds": {"count": FOLDS, "map": FOLD_MAP}}
    return Footprint("fisher", whole, 32 * FOLDS, facts, folds=tuple(folds))


def saved(million: int, count: int, work: Path) -> dict[str, Footprint]:
    """Drawn Fishers on disk, opened; those that are there are taken."""
    opened = {}
    for seed in range(count):
        place = work / f"{million}M-{seed}"
        if not place.exists():
            footprint = drawn(encoder(million), seed)
            short = tuple(Fold(fold.count, shortened(fold.tensors, torch.bfloat16)) for fold in footprint.folds)
            Footprint("fisher", footprint.tensors, footprint.count, footprint.metadata, folds=short).save(place)
        opened[f"model {seed}"] = Footprint.load(place)
    return opened


def files_of(million: int, count: int, work: Path, *, folds: bool) -> list[Path]:
    shards = [path for seed in range(count) for path in (work / f"{million}M-{seed}").glob("*.safetensors")]
    return [path for path in shards if folds or not path.name.startswith("fold")]


def cold(files: list[Path]) -> None:
    """Take files out of the cache of the operating system, and forget that they were hashed."""
    _HASHED.clear()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def hash_all(files: list[Path]) -> None:
    for path in files:
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")


def table(seconds: dict[str, list[float]], **bases: str) -> dict:
    """Medians, and ratios to bases."""
    found = {"seconds": {name: statistics.median(values) for name, values in seconds.items()}}
    return found | {words: ratios(seconds, base) for words, base in bases.items()}


def measured(options) -> dict:
    case = CASES["bert-22M"]()
    inputs = {key: torch.cat([batch[key] for batch in case.batches] * 4)[:256] for key in case.batches[0]}
    batches = [{key: value[start : start + 16] for key, value in inputs.items()} for start in range(0, 256, 16)]

    def measure(model):
        return commonweight.fisher(model, batches, loss="classification", folds=FOLDS)

    models = {"one": case.model, "other": bert(384, 6, 12, 16, 4, 0).model}
    footprints = {name: measure(model) for name, model in models.items()}
    runs = {
        "measure one": partial(measure, models["one"]),
        "raw": partial(overlap, footprints, intervals=False),
        "folded": partial(overlap, footprints),
    }
    runs["folded"]()
    return table(interleave(runs, options.rounds), to_measuring="measure one", to_raw="raw")


def generated(options) -> dict:
    found = {}
    for million in options.sizes:
        for count in options.footprints:
            place = options.work / "generated"
            footprints = saved(million, count, place)
            every, whole = (files_of(million, count, place, folds=folds) for folds in (True, False))
            seconds: dict[str, list[float]] = {}
            runs = [
                ("read and hash, with folds", every, partial(hash_all, every)),
                ("folded", every, partial(overlap, footprints)),
                ("read and hash", whole, partial(hash_all, whole)),
                ("raw", whole, partial(overlap, footprints, intervals=False)),
            ]
            if count > 2:
                earlier = overlap(dict(list(footprints.items())[:-1]))
                runs.append(("one added", every, partial(overlap, footprints, earlier=earlier)))
            for _ in range(options.cold_rounds):
                for name, files, run in runs:
                    cold(files)
                    start = time.perf_counter()
                    run()
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
            bytes_read = sum(path.stat().st_size for path in every)
            case = {"bytes": bytes_read, "bytes without folds": sum(path.stat().st_size for path in whole)}
            found[f"{million} M weights, {count} footprints"] = case | table(
                seconds, to_reading_with_folds="read and hash, with folds", to_reading="read and hash"
            )
            print(million, count, found[f"{million} M weights, {count} footprints"]["seconds"], flush=True)
            if options.footprints[-1] == count:
                shutil.rmtree(place)
    return found


def tensors(options) -> dict:
    found = {}
    for count in (500, 1000, 2000, 5000):
        shapes = {f"layer.{i}.weight": (20, 50) for i in range(count)}
        place = options.work / f"tensors-{count}"
        footprints = {}
        for name, seed in (("one", 0), ("other", 1)):
            footprints[name] = Footprint.load(drawn(shapes, seed).save(place / name, overwrite=True))
        runs = {"raw": partial(overlap, footprints, intervals=False), "folded": partial(overlap, footprints)}
        found[str(count)] = table(interleave(runs, options.rounds))["seconds"]
        shutil.rmtree(place)
    return found


def busy(options) -> dict:
    footprints = {name: drawn(encoder(22), seed) for seed, name in enumerate("ab")}
    runs = {"raw": partial(overlap, footprints, intervals=False), "folded": partial(overlap, footprints)}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        return table(interleave(runs, options.rounds))
    finally:
        for other in others:
            other.kill()


def memory(_) -> dict:
    found = {}
    for million in (5, 22, 110):
        call = [sys.executable, __file__, "--peak", str(million)]
        found[f"{million} M weights"] = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)
    return found


def peak(million: int) -> None:
    """Print the bytes of resident memory that a folded overlap of two drawn Fishers adds."""
    overlap({name: drawn(encoder(5), seed) for seed, name in enumerate("ab")})  # libraries and thread pools are there
    footprints = {name: drawn(encoder(million), seed) for seed, name in enumerate("ab")}
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    before = highest()
    overlap(footprints)
    print(json.dumps({"before": before, "above": highest() - before}))


def highest() -> int:
    """Peak of resident memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


PARTS = {"measured": measured, "generated": generated, "tensors": tensors, "busy": busy, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[5, 22, 110], help="million weights")
    parser.add_argument("--footprints", nargs="+", type=int, default=[2, 4, 9, 20])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-overlap"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.peak)
        return
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    result = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for part in options.parts:
        load = os.getloadavg()[0]
        found = PARTS[part](options)
        result[part] = {
            "machine": machine | {"load at the start": load},
            "found": result.get(part, {}).get("found", {}) | found,
        }
        text = json.dumps(result, indent=1)
        print(part, json.dumps(found, indent=1), flush=True)
        if options.out:
            options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
