"""All-pairs Jaccard indices of packed masks, against the first notebook's function called on every pair.

Both run in turn in one process, round after round; a figure is the median over the rounds of the ratio within a round.
The notebook's function runs on every pair of boolean masks, each pair once: nothing is scaled there. Supermasks that a
network computes with are float32; on those it takes longer, so it runs on a sample of the pairs and the time is scaled
up by their number, as the result says. This library's time is that of ``overlap()``: preflight, Gram matrix and table.

    python benchmarks/jaccard.py --out benchmarks/results/jaccard.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from commonweight.footprints.footprint import Footprint
from commonweight.footprints.packed import PackedMasks
from commonweight.overlaps.table.table import overlap


def notebook_jaccard(one, other):
    """The notebook's formula, with its two passes over both masks."""
    both = np.sum(np.logical_and(one, other))
    either = np.sum(np.logical_or(one, other))
    return both / either if either != 0 else 0


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def measure(count: int, weights: int, rounds: int, sample: int, threads: list[int]) -> dict:
    generator = np.random.default_rng(0)
    masks = [generator.random(weights) < density for density in generator.uniform(0.3, 0.7, count)]
    footprints = {
        f"task {i}": Footprint("supermask", PackedMasks.of({"fc.weight": torch.from_numpy(mask)}), 0)
        for i, mask in enumerate(masks)
    }
    pairs = list(combinations(range(count), 2))
    chosen = [pairs[k] for k in generator.choice(len(pairs), min(sample, len(pairs)), replace=False)]
    as_float = {i: masks[i].astype(np.float32) for i in sorted({i for pair in chosen for i in pair})}
    found = {"notebook, boolean masks": [], "notebook, float32 masks (scaled)": []}
    ours: dict[int, list[float]] = {each: [] for each in threads}
    for _ in range(rounds):
        taken, values = seconds(lambda: [notebook_jaccard(masks[i], masks[j]) for i, j in pairs])
        found["notebook, boolean masks"].append(taken)
        for each in threads:
            torch.set_num_threads(each)
            taken, pooled = seconds(lambda: overlap(footprints).pooled)
            ours[each].append(taken)
            assert np.array_equal(pooled[tuple(np.transpose(pairs))], values), "the two disagree"
        taken, _ = seconds(lambda: [notebook_jaccard(as_float[i], as_float[j]) for i, j in chosen])
        found["notebook, float32 masks (scaled)"].append(taken * len(pairs) / len(chosen))
    held = sum(footprint.tensors.nbytes for footprint in footprints.values())
    torch.set_num_threads(1)
    tracemalloc.start()
    overlap(footprints)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "masks": count,
        "weights": weights,
        "pairs": len(pairs),
        "rounds": rounds,
        "pairs timed, boolean": len(pairs),
        "pairs timed, float32": len(chosen),
        "seconds": {name: statistics.median(each) for name, each in found.items()},
        "commonweight": {
            f"{each} thread{'s' if each > 1 else ''}": {
                "seconds": statistics.median(ours[each]),
                **{
                    f"times faster than the {name}": {
                        "median": round(statistics.median(ratios), 1),
                        "lowest": round(min(ratios), 1),
                        "highest": round(max(ratios), 1),
                    }
                    for name, times in found.items()
                    for ratios in [[a / b for a, b in zip(times, ours[each], strict=True)]]
                },
            }
            for each in threads
        },
        "bytes per weight and mask in memory": held / count / weights,
        "peak bytes beside the masks, 1 thread": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--weights", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sample", type=int, default=300, help="pairs of float32 masks that are timed")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load at the start": os.getloadavg()[0],
        "versions": {"numpy": np.__version__, "torch": torch.__version__, "python": platform.python_version()},
        **measure(options.masks, options.weights, options.rounds, options.sample, options.threads),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
