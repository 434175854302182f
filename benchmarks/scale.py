"""Overlap and fusion of models larger than memory allows: time against reading the files, and resident memory.

    python benchmarks/scale.py --work runs/benchmark-scale --out benchmarks/results/scale.json

For each size, two drawn Fishers without folds and two drawn encoder checkpoints lie on disk as float32. Each call runs
in a process of its own, with the files out of the cache (``posix_fadvise``); so does the plain reading and hashing of
the same files. Memory is anonymous resident memory, sampled every 5 ms: pages of files that are read through memory
maps go back to the system when it needs them. ``slope`` is the straight line through the sizes: seconds per 1e9
parameters, by least squares.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from overlap import cold, hash_all
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from commonweight import Footprint, fuse_checkpoints, overlap

SIZES = {110: (768, 12), 340: (1024, 24), 1000: (1792, 25)}
"""Million parameters, about -> hidden size and layers of an encoder with 30522 tokens."""


def config_of(million: int) -> BertConfig:
    hidden, layers = SIZES[million]
    return BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64, intermediate_size=4 * hidden
    )


def drawn(million: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights of an encoder, drawn one by one: no model is built."""
    with torch.device("meta"):
        shapes = {
            name: each.shape for name, each in BertForSequenceClassification(config_of(million)).state_dict().items()
        }
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.empty(shape).normal_(0, 0.02, generator=generator) for name, shape in shapes.items()}


def made(million: int, work: Path) -> tuple[list[Path], list[Path]]:
    """Two checkpoints, and two Fishers of their shapes."""
    shutil.rmtree(work, ignore_errors=True)
    for seed in range(2):
        weights = drawn(million, seed)
        place = work / f"model-{seed}"
        place.mkdir(parents=True)
        config_of(million).save_pretrained(place)
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
        Footprint("fisher", {name: each.square_() for name, each in weights.items()}, 256).save(work / f"fisher-{seed}")
        del weights
    return [*work.glob("fisher-*/*.safetensors")], [*work.glob("model-*/*.safetensors")]


def measured(what: str, work: Path, files: list[Path]) -> dict:
    """Time a call in a process of its own, from a cold cache, and the bytes that its resident memory grows by."""
    cold(files)
    call = [sys.executable, __file__, "--call", what, "--work", str(work)]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def call(what: str, work: Path) -> None:
    before, peak, is_done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    if what == "overlap":
        overlap({f"model {seed}": Footprint.load(work / f"fisher-{seed}") for seed in range(2)})
    elif what == "fuse":
        fuse_checkpoints([work / "model-0", work / "model-1"], output=work / "fused")
    else:
        hash_all([*work.glob(f"{what}-*/*.safetensors")])
    seconds = time.perf_counter() - start
    is_done.set()
    watching.join()
    print(json.dumps({"seconds": seconds, "bytes above": peak[0] - before}))


def anonymous() -> int:
    """Resident memory without pages of files, which the system takes back when it needs them, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES), help="million parameters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-scale"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        call(options.call, options.work)
        return
    found: dict[str, dict] = {}
    for million in options.sizes:
        fishers, models = made(million, options.work)
        rounds = []
        for _ in range(options.rounds):
            of = {
                "fisher": measured("fisher", options.work, fishers),
                "overlap": measured("overlap", options.work, fishers),
            }
            of |= {"model": measured("model", options.work, models), "fuse": measured("fuse", options.work, models)}
            shutil.rmtree(options.work / "fused")
            rounds.append(of)
        seconds = {what: float(np.median([each[what]["seconds"] for each in rounds])) for what in rounds[0]}
        found[f"{million} M"] = {
            "parameters": sum(each.numel() for each in drawn(million, 0).values()),
            "bytes": {
                "fishers": sum(f.stat().st_size for f in fishers),
                "models": sum(f.stat().st_size for f in models),
            },
            "seconds": seconds,
            "overlap to reading": float(np.median([r["overlap"]["seconds"] / r["fisher"]["seconds"] for r in rounds])),
            "fuse to reading": float(np.median([r["fuse"]["seconds"] / r["model"]["seconds"] for r in rounds])),
            "bytes above": {what: max(each[what]["bytes above"] for each in rounds) for what in ("overlap", "fuse")},
        }
        print(million, found[f"{million} M"], flush=True)
        shutil.rmtree(options.work)
    if len(found) > 1:
        size = [each["parameters"] / 1e9 for each in found.values()]
        slopes = {
            w: float(np.polyfit(size, [e["seconds"][w] for e in found.values()], 1)[0]) for w in ("overlap", "fuse")
        }
        found["slope, seconds per 1e9 parameters"] = slopes
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
