"""Bytes that processes send each other while they measure a Fisher together, beside a ring's 8 (n - 1) / n.

    unshare -n bash -c "ip link set lo up && torchrun --nproc-per-node 2 --master-addr 127.0.0.1 benchmarks/network.py
        --out benchmarks/results/network-2.json"

The bytes are those of the loopback device (``/proc/net/dev``), so nothing else may use it: ``unshare -n`` gives a
network of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import distributed, nn

from commonweight import fisher


def sent() -> int:
    """Bytes that left the loopback device."""
    (line,) = (each for each in Path("/proc/net/dev").read_text().splitlines() if each.strip().startswith("lo:"))
    return int(line.split()[9])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    distributed.init_process_group("gloo")
    size = distributed.get_world_size()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2000, 2000), nn.Tanh(), nn.Linear(2000, 2))
    x, y = torch.randn(24, 2000), torch.randint(2, (24,))
    parameters = sum(each.numel() for each in model.parameters())
    of_folds = {}
    for folds in (1, 2, 4):
        distributed.barrier()
        before = sent()
        fisher(model, list(zip(x.split(2), y.split(2), strict=True)), folds=folds)
        distributed.barrier()
        of_folds[folds] = (sent() - before) / parameters / folds / size
    if distributed.get_rank() == 0:
        found = {
            "processes": size,
            "parameters": parameters,
            "bytes that a process sends, per parameter and fold": of_folds,
            "8 (n - 1) / n": 8 * (size - 1) / size,
        }
        print(json.dumps(found, indent=1))
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
