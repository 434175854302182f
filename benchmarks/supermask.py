"""Time of a training step of supermask networks, as ratios to the same dense network's, and storage per task.

The network is 784-1024-1024-10 with batches of 128 and Adam; "ResNet" contenders are a residual network of 20 batch
norms on 8 x 8 images, in batches of 64. Every contender runs in turn in one process, after a warm-up; a figure is the
median over the rounds of the ratio to the same network, dense, of the same round. "plain" contenders are the rules
written down directly: one autograd function per mask, ``torch.topk`` for the density.

    python benchmarks/supermask.py --out benchmarks/results/supermask.json

``--contenders`` selects, ``--rounds`` and ``--steps`` set the length. A result file that is there already keeps the
contenders that are not run again.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commonweight.supermasks.files import TENSORS
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import MaskRule, Threshold, TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDTHS = (784, 1024, 1024, 10)
BATCH = 128
DENSITY = 0.3
SIDE = 8


def mlp() -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.short = nn.Identity()
        if stride > 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(found + self.short(x))


def resnet() -> nn.Sequential:
    """Eight residual blocks, from 8 to 64 channels."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, SIDE, SIDE)), nn.Conv2d(1, 8, 3, 1, 1, bias=False)]
    layers += [nn.BatchNorm2d(8), nn.ReLU()]
    inner = 8
    for outer, stride in ((8, 1), (16, 2), (32, 2), (64, 2)):
        layers += [Block(inner, outer, stride), Block(outer, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, WIDTHS[-1]))


def stepping(
    net: nn.Module, parameters: Iterable[nn.Parameter], batch: int = BATCH, width: int = WIDTHS[0]
) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand(batch, width, generator=generator), torch.arange(batch) % WIDTHS[-1]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimiser.step()

    return step


def dense() -> Callable[[], None]:
    net = mlp()
    return stepping(net, net.parameters())


def ours(rule: MaskRule) -> Callable[[], None]:
    net = SupermaskNetwork(mlp(), rule)
    net.add_task("a")
    net.switch("a")
    return stepping(net, net.trainable("a"))


def of_resnet(rule: MaskRule | None) -> Callable[[], None]:
    net: nn.Module = resnet()
    if rule is None:
        return stepping(net, net.parameters(), 64, SIDE**2)
    masked = SupermaskNetwork(net, rule)
    masked.add_task("a")
    masked.switch("a")
    return stepping(masked, masked.trainable("a"), 64, SIDE**2)


def influenced() -> Callable[[], None]:
    """Every layer mixed with two prior tasks."""
    net = SupermaskNetwork(mlp(), Threshold())
    for task in ("a", "b"):
        net.add_task(task)
        net.finish(task)
    net.add_task("c")
    net.switch("c")
    net.influence({name: {"a": 0.5, "b": 0.5} for name in net.masked}, 0.3)
    return stepping(net, net.trainable("c"))


class PlainThreshold(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, scores: Tensor) -> Tensor:
        return (scores >= 0).float()

    @staticmethod
    def backward(_ctx, gradient: Tensor) -> Tensor:
        return gradient


class PlainTopK(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, scores: Tensor) -> Tensor:
        flat = scores.flatten()
        mask = torch.zeros_like(flat)
        mask[flat.topk(round(DENSITY * flat.numel()), sorted=False).indices] = 1
        return mask.view_as(scores)

    @staticmethod
    def backward(_ctx, gradient: Tensor) -> Tensor:
        return gradient


class PlainLinear(nn.Linear):
    def __init__(self, inner: int, outer: int, rule: type[torch.autograd.Function]) -> None:
        super().__init__(inner, outer)
        self.requires_grad_(False)
        self.rule = rule
        self.scores = nn.Parameter(torch.empty_like(self.weight).uniform_(-(inner**-0.5), inner**-0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight * self.rule.apply(self.scores), self.bias)


def plain(rule: type[torch.autograd.Function]) -> Callable[[], None]:
    layers = [
        PlainLinear(layer.in_features, layer.out_features, rule) if isinstance(layer, nn.Linear) else layer
        for layer in mlp()
    ]
    net = nn.Sequential(*layers)
    return stepping(net, [parameter for parameter in net.parameters() if parameter.requires_grad])


CONTENDERS: dict[str, tuple[Callable[[], Callable[[], None]], float | None]] = {
    "dense": (dense, None),
    "threshold": (lambda: ours(Threshold()), 1.15),
    "top-k": (lambda: ours(TopK(DENSITY)), 1.3),
    "ResNet dense": (lambda: of_resnet(None), None),
    "ResNet threshold": (lambda: of_resnet(Threshold()), 1.15),
    "ResNet top-k": (lambda: of_resnet(TopK(DENSITY)), 1.3),
    "top-k by magnitude": (lambda: ours(TopK(DENSITY, "magnitude")), 2.5),
    "threshold, influenced by two tasks": (influenced, None),
    "plain threshold": (lambda: plain(PlainThreshold), None),
    "plain top-k": (lambda: plain(PlainTopK), None),
}
"""How to make a contender, and the ratio to the dense network that this project asks of it on CPU cores."""


def time_steps(contenders: list[str], rounds: int, steps: int) -> dict:
    runs = {}
    for contender in contenders:
        torch.manual_seed(0)
        runs[contender] = CONTENDERS[contender][0]()
        for _ in range(3):
            runs[contender]()
    seconds: dict[str, list[float]] = {contender: [] for contender in runs}
    for _ in range(rounds):
        for contender, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            for _ in range(steps):
                run()
            seconds[contender].append((time.perf_counter() - start) / steps)
    table = {}
    for contender, values in seconds.items():
        same = seconds["ResNet dense" if contender.startswith("ResNet") else "dense"]
        each = sorted(value / one for value, one in zip(values, same, strict=True))
        table[contender] = {
            "bound": CONTENDERS[contender][1],
            "seconds": statistics.median(values),
            "ratio": {"median": statistics.median(each), "min": each[0], "max": each[-1]},
        }
    return table


def storage() -> dict:
    """Bytes that one more finished task takes, with scores dropped: in memory, and on disk."""
    model = nn.Sequential()
    for inner, outer in itertools.pairwise(WIDTHS):
        model.extend([nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU()])
    net = SupermaskNetwork(model)
    in_memory, on_disk = [], []
    with tempfile.TemporaryDirectory() as folder:
        for count in range(3):
            tensors = [*net.parameters(), *net.buffers()]
            in_memory.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
            net.save(f"{folder}/{count}")
            on_disk.append((Path(folder) / str(count) / TENSORS).stat().st_size)
            net.add_task(str(count))
            net.finish(str(count), keep_scores=False)
    weights = sum(net.mask("0", name).numel() for name in net.masked)
    numbers = [values for held in net.statistics("0").values() for values in (held.mean, held.variance)]
    return {
        "weights": weights,
        "statistics_bytes": sum(values.numel() * values.element_size() for values in numbers),
        "task_bytes_in_memory": in_memory[2] - in_memory[1],
        "task_bytes_on_disk": on_disk[2] - on_disk[1],
        "bits_per_weight_beside_statistics": 8 * sum(net.bits("0", name).nbytes for name in net.masked) / weights,
    }


def environment() -> dict:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "versions": {package: version(package) for package in ("torch", "numpy")},
    }


def main() -> None:
    """Run what was asked for and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="training steps per contender and round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict = {"step": {}}
    if options.out and options.out.exists():
        results = json.loads(options.out.read_text())
    contenders = list(dict.fromkeys(["dense", "ResNet dense", *options.contenders]))
    results["step"] |= time_steps(contenders, options.rounds, options.steps)
    for contender in contenders:
        figures = results["step"][contender]
        bound = f" (asked: at most {figures['bound']})" if figures["bound"] else ""
        print(f"{contender}: {figures['ratio']['median']:.2f}{bound}", flush=True)
    results["storage"] = storage()
    print(results["storage"])
    results["environment"] = environment()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
