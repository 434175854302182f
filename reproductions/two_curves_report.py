"""What two_curves.py found, as tables and a record; every number derived from the tables of the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

import commonweight
from commonweight.decision.verdict import Verdict, by_chance, contrast_verdict
from commonweight.overlaps.estimate import Estimate
from commonweight.overlaps.similarity import TaskSimilarity
from commonweight.overlaps.table import OverlapTable
from commonweight.record import without_nan
from commonweight.text import Grid, to_markdown
from commonweight.view.estimates import estimate, signed

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = (*(f"fc{k}" for k in range(1, 7)), "out")
NORMS = tuple(f"bn{k}" for k in range(1, 7))
SIZES = (2, 8, 14, 20, 26)
PAIRS = (*(f"{size} px" for size in SIZES), "random labels")
"""The second task of each pair: the first is MNIST as it is. Random labels, on images as they are, are a control."""

ARMS = {
    "ewc": "in sequence with EWC",
    "one network": "in sequence with EWC, both Fishers at the end",
    "sequence": "in sequence without EWC",
    "apart": "same start, apart",
    "independent": "independent starts",
    "untrained": "the start itself, untrained",
}
STARTS = ("independent", "shared")
MASKS = ("Masks, Jaccard index beyond chance", "Flipped bits, Jaccard index")
"""What is compared with each of the two starts of scores."""

SIMILARITIES = {"every_layer": "Similarity by batch-norm means", "probed": "Similarity by probing"}


class Found:
    """Everything measured, of the seeds that are complete; estimates are over seeds."""

    def __init__(self, work: Path, seeds: int) -> None:
        folders = [work / f"seed-{seed}" for seed in range(seeds)]
        self.accuracy: dict = {}
        self.fishers: dict[str, dict[str, list[OverlapTable]]] = {}
        for arm in ARMS:
            records = {pair: [_read(folder / arm / f"{pair}.json") for folder in folders] for pair in PAIRS}
            self.fishers[arm] = {
                pair: [OverlapTable.from_json(json.dumps(record["table"])) for record in of_seeds]
                for pair, of_seeds in records.items()
            }
            self.accuracy[arm] = {pair: [each["accuracy"] for each in of_seeds] for pair, of_seeds in records.items()}
        self.masks: dict[str, list[OverlapTable]] = {}
        self.similarity: dict[str, dict[str, list[TaskSimilarity]]] = {}
        for starts in STARTS:
            records = [_read(folder / f"masks, {starts} starts.json") for folder in folders]
            self.masks[starts] = [OverlapTable.from_json(json.dumps(each["table"])) for each in records]
            self.accuracy[f"masks, {starts} starts"] = [each["accuracy"] for each in records]
            self.similarity[starts] = {
                name: [TaskSimilarity.from_json(json.dumps(each["similarity"][name])) for each in records]
                for name in ("first_layer", "every_layer", "probed")
            }

    def fisher(self, of: str, arm: str, pair: str, layer: str) -> Estimate:
        """``raw``, ``corrected``, ``null`` or ``above_null``."""
        tables = self.fishers[arm][pair]
        return Estimate.over_seeds([table.estimate(of, "first", "second", layer).value for table in tables])

    def learned(self, arm: str, pair: str, layer: str) -> Estimate:
        """How far training moved the overlap from that of the untrained start."""
        return self.fisher("corrected", arm, pair, layer) - self.fisher("corrected", "untrained", pair, layer)

    def share(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two shares of the trace."""
        return Estimate.over_seeds([float(table.trace_share[layer].min()) for table in self.fishers[arm][pair]])

    def ceiling(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two ceilings."""
        return Estimate.over_seeds([float(table.ceiling.by_layer[layer].min()) for table in self.fishers[arm][pair]])

    def mask(self, starts: str, pair: str, layer: str) -> Estimate:
        """Beyond chance from independent starts; of flipped bits from shared ones, which have no chance level."""
        at = 1 + PAIRS.index(pair)
        levels = [t.corrected.by_layer if starts == "independent" else t.by_layer for t in self.masks[starts]]
        return Estimate.over_seeds([float(each[layer][0, at]) for each in levels])

    def alike(self, starts: str, similarity: str, pair: str, norm: str) -> Estimate:
        """The second task's similarity to the first; its statistics, or its images through the first task's mask."""
        at = 1 + PAIRS.index(pair)
        return Estimate.over_seeds([float(t.values[norm][at, 0]) for t in self.similarity[starts][similarity]])

    def tables(self, arm: str) -> list[OverlapTable]:
        return [table for of_seeds in self.fishers[arm].values() for table in of_seeds]

    def effective(self, arm: str) -> list[float]:
        return [count for table in self.tables(arm) for count in table.effective_examples.values()]

    def aligned(self, arm: str) -> bool | None:
        readings = {table.alignment.reading("first", "second") for table in self.tables(arm)}
        return {"common start": True, "no common start": False}.get(*readings) if len(readings) == 1 else None

    def alignment(self, arm: str) -> str:
        tables = self.tables(arm)
        readings = sorted({table.alignment.reading("first", "second") for table in tables})
        distances = [float(table.alignment.distance[0, 1]) for table in tables]
        return f"{' or '.join(readings)} (relative weight distance {min(distances):.2f} to {max(distances):.2f})"


QUESTIONS = (
    "8 px over 26 px, first layer",
    "8 px over 26 px, last layer",
    "26 px: last over first layer",
    "8 px: last over first layer",
    "26 px over random labels, last layer",
)
"""Differences that are above 0 where the answer is yes; the paper says yes to the first and the third."""


def differences(measure, first: str, last: str) -> dict[str, Estimate]:
    pairs = (
        (measure("8 px", first), measure("26 px", first)),
        (measure("8 px", last), measure("26 px", last)),
        (measure("26 px", last), measure("26 px", first)),
        (measure("8 px", last), measure("8 px", first)),
        (measure("26 px", last), measure("random labels", last)),
    )
    return {question: a - b for question, (a, b) in zip(QUESTIONS, pairs, strict=True)}


def contrasts(found: Found) -> dict[str, dict[str, Verdict]]:
    """Contrasts of overlaps over seeds. A second task's rows are the first's: the same test images, changed."""

    def judged(of: dict[str, Estimate], aligned: bool | None, effective: list[float] | None) -> dict[str, Verdict]:
        return {
            question: contrast_verdict(
                each,
                same_rows=True,
                aligned=aligned,
                noise_taken_out=None if effective is None else True,
                effective_examples=effective,
            )
            for question, each in of.items()
        }

    answers = {}
    for arm, words in ARMS.items():
        of = differences(lambda p, k, a=arm: found.fisher("corrected", a, p, k), "fc1", "out")
        answers[f"Fisher overlap, {words}"] = judged(of, found.aligned(arm), found.effective(arm))
    for starts, words in zip(STARTS, MASKS, strict=True):
        of = differences(lambda p, k, s=starts: found.mask(s, p, k), "fc1", "out")
        answers[f"{words}, {starts} score starts"] = judged(of, True, None)
    return answers


def similar(found: Found) -> dict[str, dict[str, Estimate]]:
    """The same differences of similarities of tasks, which are no overlaps."""
    return {
        f"{words}, {starts} score starts": differences(
            lambda p, k, s=starts, a=name: found.alike(s, a, p, k), "bn1", "bn6"
        )
        for name, words in SIMILARITIES.items()
        for starts in STARTS
    }


def report(found: Found, settings: dict, seeds: int) -> str:
    told = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items())
    blocks: list = [
        f"Means over {seeds} seeds ± half a 95 % interval over seeds: other trainings, permutations of the square, and "
        f"choices of images. Overlaps of a layer are normalised within it. Settings: {told}."
    ]
    rows = [
        (name, *(f"{signed(each.estimate)} ({each.answer})" for each in verdicts.values()))
        for name, verdicts in contrasts(found).items()
    ]
    rows += [(name, *(signed(each) for each in of.values())) for name, of in similar(found).items()]
    title = "What was published (above 0 in the first column, and in the third), and what was found"
    blocks.append(Grid(title, ("", *QUESTIONS), tuple(rows)))
    blocks.append(by_chance(len(QUESTIONS) * len(contrasts(found)), "contrasts"))
    for arm in ("ewc", "one network", "sequence", "apart"):
        rows = [(pair, *(signed(found.learned(arm, pair, layer)) for layer in LAYERS)) for pair in PAIRS]
        blocks.append(
            Grid(f"Corrected overlap, {ARMS[arm]}, less that of the untrained start", ("", *LAYERS), tuple(rows))
        )
    for arm, words in ARMS.items():
        rows = [
            (f"{pair}, {name}", *(estimate(measure(arm, pair, layer)) for layer in LAYERS))
            for name, measure in (
                ("corrected", lambda a, p, k: found.fisher("corrected", a, p, k)),
                ("raw − null", lambda a, p, k: found.fisher("above_null", a, p, k)),
                ("ceiling", found.ceiling),
                ("trace share", found.share),
            )
            for pair in PAIRS
        ]
        blocks += [Grid(f"Fisher overlap: {words}", ("", *LAYERS), tuple(rows)), f"Alignment: {found.alignment(arm)}."]
    for starts, words in zip(STARTS, MASKS, strict=True):
        rows = [(pair, *(estimate(found.mask(starts, pair, layer)) for layer in LAYERS)) for pair in PAIRS]
        blocks.append(Grid(f"{words}, {starts} score starts", ("", *LAYERS), tuple(rows)))
    for starts in STARTS:
        rows = [
            (f"{pair}, {name}", *(estimate(found.alike(starts, similarity, pair, norm)) for norm in NORMS))
            for similarity, name in (("every_layer", "batch-norm means"), ("probed", "probed"))
            for pair in PAIRS
        ]
        title = f"Similarity of tasks, {starts} score starts (that of the first layer is bn1 of batch-norm means)"
        blocks.append(Grid(title, ("", *NORMS), tuple(rows)))
    rows = []
    for arm in ("ewc", "sequence", "apart", "independent"):
        for pair in PAIRS:
            each = found.accuracy[arm][pair]
            cells = (
                estimate(Estimate.over_seeds([one[key] for one in each])) if key in each[0] else "–"
                for key in ("first, alone", "first, after second", "second")
            )
            rows.append((f"{ARMS[arm]}, {pair}", *cells))
    blocks.append(Grid("Accuracy", ("", "first task, alone", "first, after second", "second"), tuple(rows)))
    rows = [
        (
            pair,
            *(estimate(Estimate.over_seeds([e[pair] for e in found.accuracy[f"masks, {s} starts"]])) for s in STARTS),
        )
        for pair in ("first", *PAIRS)
    ]
    blocks.append(Grid("Accuracy of masks", ("", *(f"{starts} starts" for starts in STARTS)), tuple(rows)))
    return to_markdown(blocks)


def record(found: Found, settings: dict, digest: str, seeds: int) -> dict:
    """Every number per seed, with intervals over folds where there are any."""

    def plain(value: Estimate) -> dict:
        return {"value": value.value, "low": value.low, "high": value.high}

    def of_table(table: OverlapTable) -> dict:
        per_layer = {}
        for layer in LAYERS:
            per_layer[layer] = {
                of: plain(table.estimate(of, "first", "second", layer)) for of in ("raw", "corrected", "extrapolated")
            } | {
                "null": float(table.null.strictest.by_layer[layer][0, 1]),
                "null_permutes": str(table.null.which(layer)[0, 1]),
                "ceilings": table.ceiling.by_layer[layer].tolist(),
                "trace_shares": table.trace_share[layer].tolist(),
            }
        return {
            "layers": per_layer,
            "pooled": {of: plain(table.estimate(of, "first", "second")) for of in ("raw", "corrected")},
            "effective_examples": list(table.effective_examples.values()),
            "weight_distance": float(table.alignment.distance[0, 1]),
            "alignment": table.alignment.reading("first", "second"),
        }

    return without_nan({
        "settings": settings,
        "data_sha256": digest,
        "seeds": seeds,
        "versions": {"torch": torch.__version__, "commonweight": commonweight.__version__},
        "contrasts_over_seeds": {
            name: {question: plain(each.estimate) | {"answer": each.answer} for question, each in of.items()}
            for name, of in contrasts(found).items()
        }
        | {name: {question: plain(each) for question, each in of.items()} for name, of in similar(found).items()},
        "accuracy": found.accuracy,
        "fisher": {
            arm: {pair: [of_table(table) for table in of_seeds] for pair, of_seeds in pairs.items()}
            for arm, pairs in found.fishers.items()
        },
        "masks": {
            starts: {
                pair: {
                    layer: [
                        {
                            "jaccard": float(t.by_layer[layer][0, at]),
                            "beyond_chance": float(t.corrected.by_layer[layer][0, at]),
                            "densities": t.density.by_layer[layer][[0, at]].tolist(),
                        }
                        for t in tables
                    ]
                    for layer in LAYERS
                }
                for at, pair in enumerate(PAIRS, 1)
            }
            for starts, tables in found.masks.items()
        },
        "similarity": {
            starts: {
                name: {
                    pair: {norm: [float(t.values[norm][at, 0]) for t in tables] for norm in tables[0].layers}
                    for at, pair in enumerate(PAIRS, 1)
                }
                for name, tables in of.items()
            }
            for starts, of in found.similarity.items()
        },
    })


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
