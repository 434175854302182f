"""Two published ways to ask what two tasks share, layer by layer, on the same pairs of tasks.

First the Fisher overlap against depth of Kirkpatrick et al. (2017), https://arxiv.org/abs/1612.00796, figure 2C (3C in
PNAS): MNIST, and MNIST with the pixels of a central square permuted, in a network of six hidden layers of 100 ReLU
units. Published: trained in sequence with elastic weight consolidation, a square of 8 x 8 leaves the overlap high at
every depth; one of 26 x 26 makes it low in early layers, rising towards the output. Beside it: in sequence without
consolidation, from the same start apart, and from independent initialisations; and as a control the start itself,
untrained.

Then the counterpart in supermasks: one frozen network of the same layers (with batch norm), a mask per task. Jaccard
index beyond chance (independent score initialisations), overlap of flipped bits (shared starts), and the similarities
of tasks by batch-norm means (first layer, every layer) and by probing.

Deviations from the paper, which does not give optimiser, batch size, strength or number of seeds: momentum 0.9, batches
of 64, weights drawn by He et al. (2015), 10,000 training images and 10 epochs instead of 60,000 and 100, strength 100;
learning rate 1e-3 as published. Fishers are exact over the model's own labels, on 2,000 test images, the same images
for both tasks of a pair, in 8 folds. The first task's Fisher is of the network that had learned only it, the
second's of the network at the end; "one network" measures both at the end. Overlaps are normalised within each layer,
with the share of the trace beside them: normalised over the whole network, a layer that holds little of the trace reads
near 1 whatever it shares.

    python reproductions/two_curves.py --data ../shared/data/mnist --work runs/two-curves

The same command goes on where it stopped. Networks are kept: where the tables of an arm are deleted, only they are made
again. After every seed it writes ``reproductions/results/two_curves.json``, ``.md`` and ``.png``; with ``--tables`` the
latter two anew from the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from two_curves_figure import draw
from two_curves_found import ARMS, LAYERS, PAIRS, SIZES, STARTS, Found
from two_curves_measured import record
from two_curves_report import report

import commonweight
from commonweight.overlaps.similarity.means import every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.studies.continual.approaches import Approach
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.training import accuracy as mask_accuracy
from commonweight.studies.continual.training import learn as learn_mask
from commonweight.studies.continual.training import multitask_fc
from commonweight.transfer.ewc import ewc_penalty

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "two_curves"
HIDDEN = (100,) * 6
APART = 1000
"""Added to the seed of an independent initialisation."""


class Settings(argparse.Namespace):
    data: Path
    work: Path
    results: Path
    seeds: int
    rows: int
    test_rows: int
    epochs: int
    batch_size: int
    rate: float
    momentum: float
    strength: float
    mask_rows: int
    mask_epochs: int
    tables: bool

    def deciding(self) -> dict:
        """What decides the numbers."""
        return {
            key: value for key, value in vars(self).items() if key not in {"data", "work", "results", "seeds", "tables"}
        }


def tasks(images, seed: int, rows: int, settings: Settings) -> commonweight.data.images.TaskStream:
    """MNIST, the patches, and MNIST with random labels, all of the same images."""
    return commonweight.task_stream(
        images,
        "patch",
        seed=seed,
        sizes=(0, *SIZES, 0),
        random_labels=(len(PAIRS),),
        rows=rows,
        test_rows=settings.test_rows,
    )


def perceptron(seed: int) -> nn.Sequential:
    """Six hidden layers of 100 ReLU units, weights drawn by He et al. (2015), biases 0."""
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    width = 784
    for name, units in zip(LAYERS, (*HIDDEN, 10), strict=True):
        layer = nn.Linear(width, units)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers[name] = layer
        if name != "out":
            layers[f"relu_{name}"] = nn.ReLU()
        width = units
    net = nn.Sequential()
    for name, module in layers.items():
        net.add_module(name, module)
    return net


def learn(net: nn.Module, task, seed: int, settings: Settings, penalty=None) -> None:
    optimiser = torch.optim.SGD(net.parameters(), lr=settings.rate, momentum=settings.momentum)
    for epoch in range(settings.epochs):
        for inputs, labels in task.train.batches(settings.batch_size, seed=seed, epoch=epoch):
            loss = F.cross_entropy(net(inputs), labels)
            if penalty is not None:
                loss = loss + penalty()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def accuracy(net: nn.Module, task) -> float:
    with torch.no_grad():
        return float((net(task.test.inputs).argmax(dim=1) == task.test.labels).float().mean())


def importance(net: nn.Module, task) -> commonweight.Footprint:
    return commonweight.fisher(net, task.test.batches(500), fisher_type="exact", folds=8)


def copies(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def kept(path: Path, net: nn.Module, train: Callable[[nn.Module], None]) -> nn.Module:
    """Train a network and keep its weights, or give it those that were kept."""
    if path.exists():
        net.load_state_dict(load_file(path))
        return net
    train(net)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.writing")
    save_file(net.state_dict(), unfinished)
    unfinished.rename(path)
    return net


def write(path: Path, record: dict) -> None:
    """Write under another name first, so that a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".writing")
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.rename(path)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def compare(place: Path, first, second, accuracies: dict) -> None:
    """Save the table of two Fishers, and then the accuracies, which say that it is there."""
    commonweight.overlap({"first": first, "second": second}).save(place)
    write(place.with_name(f"{place.name}.json"), {"accuracy": accuracies})


def fishers_of_seed(folder: Path, images, seed: int, settings: Settings, note) -> None:
    """Train every arm for every pair, and write one table for each."""
    missing = [(arm, pair) for pair in PAIRS for arm in ARMS if not (folder / arm / f"{pair}.json").exists()]
    if not missing:
        return
    stream = tasks(images, seed, settings.rows, settings)
    base = stream[0]
    first = kept(folder / "networks" / "first", perceptron(seed), lambda net: learn(net, base, seed, settings))
    anchor, earlier = copies(first), importance(first, base)
    alone = accuracy(first, base)
    note(f"seed {seed}: first task {alone:.3f}")
    untrained = perceptron(seed)
    start = importance(untrained, base)
    for pair in dict.fromkeys(pair for _, pair in missing):
        task = stream[1 + PAIRS.index(pair)]
        compare(folder / "untrained" / pair, start, importance(untrained, task), {})
        for arm in ("ewc", "sequence", "apart", "independent"):
            if (arm, pair) not in missing and not (arm == "ewc" and ("one network", pair) in missing):
                continue
            net = perceptron(seed + APART if arm == "independent" else seed)
            if arm in {"ewc", "sequence"}:
                net.load_state_dict(anchor)

            def train(net: nn.Module, task=task, arm=arm) -> None:
                def penalty() -> torch.Tensor:
                    return ewc_penalty(net, earlier, anchor, strength=settings.strength)

                learn(net, task, seed + 1, settings, penalty if arm == "ewc" else None)

            kept(folder / "networks" / f"{arm}, {pair}", net, train)
            found = {"first, alone": alone, "second": accuracy(net, task)}
            if arm in {"ewc", "sequence"}:
                found["first, after second"] = accuracy(net, base)
            later = importance(net, task)
            if arm == "ewc":
                compare(folder / "one network" / pair, importance(net, base), later, found)
            compare(folder / arm / pair, earlier, later, found)
            note(f"seed {seed}, {pair}, {arm}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))


def masks_of_seed(folder: Path, images, seed: int, starts: str, settings: Settings, note) -> None:
    """Learn all tasks as masks of one network, and write overlaps and similarities."""
    path = folder / f"masks, {starts} starts.json"
    if path.exists():
        return
    plan = Plan(
        data="mnist", scenario="patch", epochs=settings.mask_epochs, curve_points=2, curve_rows=1, keep_scores=False
    )
    stream = tasks(images, seed, settings.mask_rows, settings)
    net = commonweight.SupermaskNetwork(multitask_fc(784, 10, HIDDEN, seed), scores=starts, seed=seed)
    accuracies, probes = {}, {}
    for task, name in zip(stream, ("first", *PAIRS), strict=True):
        learn_mask(net, task, Approach("classic"), {}, plan, seed)
        accuracies[name] = mask_accuracy(net, task.name, task.test.inputs, task.test.labels)
        probes[task.name] = [task.test.inputs]
        note(f"seed {seed}, masks from {starts} starts, {name}: {accuracies[name]:.3f}")
    bits = {
        name: commonweight.supermask_footprint(net, name, flipped=starts == "shared", count=settings.mask_rows)
        for name in net.tasks
    }
    activity = {name: commonweight.activity_footprint(net, name, count=settings.mask_rows) for name in net.tasks}
    similarities = {
        "first_layer": first_layer_similarity(activity),
        "every_layer": every_layer_similarity(activity),
        "probed": probed_similarity(net, probes, draws=199),
    }
    record = {
        "accuracy": accuracies,
        "similarity": {name: json.loads(each.to_json()) for name, each in similarities.items()},
    }
    commonweight.overlap(bits).save(path.with_suffix(""))
    write(path, record)


def show(record: dict, results: Path) -> None:
    (results / f"{NAME}.md").write_text(report(record), encoding="utf-8")
    draw(Found(record), results / f"{NAME}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/two-curves"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000, help="training images of each task")
    parser.add_argument("--test-rows", type=int, default=2_000, help="images that Fishers are measured on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--strength", type=float, default=100.0, help="of elastic weight consolidation")
    parser.add_argument("--mask-rows", type=int, default=10_000)
    parser.add_argument("--mask-epochs", type=int, default=5)
    parser.add_argument("--tables", action="store_true", help="write tables and figure anew; measure nothing")
    settings = parser.parse_args(namespace=Settings())
    if settings.tables:
        show(read(settings.results / f"{NAME}.json"), settings.results)
        return
    if settings.data is None:
        parser.error("give --data, the folder of MNIST")
    torch.set_num_threads(1)
    start = time.time()

    def note(sentence: str) -> None:
        print(f"{time.time() - start:7.0f} s  {sentence}", file=sys.stderr, flush=True)

    images = commonweight.open_images(str(settings.data))
    asked = {"settings": settings.deciding(), "data_sha256": images.digest}
    if (settings.work / "run.json").exists():
        if read(settings.work / "run.json") != asked:
            parser.error(f"{settings.work} holds a run with other settings; give another --work")
    else:
        write(settings.work / "run.json", asked)
    for seed in range(settings.seeds):
        folder = settings.work / f"seed-{seed}"
        fishers_of_seed(folder, images, seed, settings, note)
        for starts in STARTS:
            masks_of_seed(folder, images, seed, starts, settings, note)
        written = record(settings.work, settings.deciding(), images.digest, seed + 1)
        settings.results.mkdir(parents=True, exist_ok=True)
        (settings.results / f"{NAME}.json").write_text(
            json.dumps(written, separators=(",", ":")) + "\n", encoding="utf-8"
        )
        show(written, settings.results)
        note(f"results of {seed + 1} seeds written")


if __name__ == "__main__":
    main()
