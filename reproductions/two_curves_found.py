"""What two_curves.py measured, read from its tables, and the questions asked of it: differences over seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from commonweight.base.estimate import Estimate
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.overlaps.table.evidence import Place, evidence
from commonweight.overlaps.table.table import OverlapTable
from commonweight.verdicts.verdict import Verdict, contrast_verdict, judge

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
    "independent": "independent initialisations",
    "untrained": "the start itself, untrained",
}
ONE_NETWORK = ("one network", "untrained")
"""Arms in which both Fishers are of the same weights. No word stands beside their numbers: one network shares all its
weights with itself, and what an untrained one overlaps by was not learned."""

STARTS = ("independent", "shared")
MASKS = ("Masks, Jaccard index beyond chance", "Flipped bits, Jaccard index")
"""What is compared with each of the two starts of scores."""

At = tuple[str, str]
"""A pair and a layer."""

SIMILARITIES = {"every_layer": "Similarity by batch-norm means", "probed": "Similarity by probing"}


class Found:
    """Everything measured, of the seeds that are complete; estimates are over seeds."""

    def __init__(self, work: Path, seeds: int) -> None:
        folders = [work / f"seed-{seed}" for seed in range(seeds)]
        self.accuracy: dict = {}
        self.fishers: dict[str, dict[str, list[OverlapTable]]] = {}
        for arm in ARMS:
            records = {pair: [_read(folder / arm / f"{pair}.json") for folder in folders] for pair in PAIRS}
            self.fishers[arm] = {pair: [OverlapTable.load(folder / arm / pair) for folder in folders] for pair in PAIRS}
            self.accuracy[arm] = {pair: [each["accuracy"] for each in of_seeds] for pair, of_seeds in records.items()}
        self.masks: dict[str, list[OverlapTable]] = {}
        self.similarity: dict[str, dict[str, list[TaskSimilarity]]] = {}
        for starts in STARTS:
            records = [_read(folder / f"masks, {starts} starts.json") for folder in folders]
            self.masks[starts] = [OverlapTable.load(folder / f"masks, {starts} starts") for folder in folders]
            self.accuracy[f"masks, {starts} starts"] = [each["accuracy"] for each in records]
            self.similarity[starts] = {
                name: [TaskSimilarity.from_json(json.dumps(each["similarity"][name])) for each in records]
                for name in ("first_layer", "every_layer", "probed")
            }

    def fisher(self, of: str, arm: str, pair: str, layer: str) -> Estimate:
        """``raw``, ``corrected``, ``null`` or ``above_null`` (corrected - null)."""
        tables = self.fishers[arm][pair]
        return Estimate.over_seeds([table.estimate(of, "first", "second", layer).value for table in tables])

    def learned(self, of: str, arm: str, pair: str, layer: str) -> Estimate:
        """How far training moved a number from that of the untrained start."""
        return self.fisher(of, arm, pair, layer) - self.fisher(of, "untrained", pair, layer)

    def share(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two shares of the trace."""
        return Estimate.over_seeds([float(table.trace_share[layer].min()) for table in self.fishers[arm][pair]])

    def noise_ceiling(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two noise ceilings."""
        return Estimate.over_seeds([
            float(table.noise_ceiling.by_layer[layer].min()) for table in self.fishers[arm][pair]
        ])

    def mask(self, starts: str, pair: str, layer: str) -> Estimate:
        """Beyond chance from independent initialisations; raw for flipped bits, whose chance level is not known."""
        at = 1 + PAIRS.index(pair)
        levels = [t.corrected.by_layer if starts == "independent" else t.by_layer for t in self.masks[starts]]
        return Estimate.over_seeds([float(each[layer][0, at]) for each in levels])

    def density(self, starts: str, layer: str, at: int) -> Estimate:
        """The share of a layer's bits that a task keeps, or flipped; the first task is 0, the pairs follow."""
        return Estimate.over_seeds([float(table.density.by_layer[layer][at]) for table in self.masks[starts]])

    def coincidence(self, pair: str, layer: str) -> Estimate:
        """The Jaccard index that flipped bits would have if two tasks of the same densities flipped independently."""
        at = 1 + PAIRS.index(pair)
        found = []
        for table in self.masks["shared"]:
            a, b = table.density.by_layer[layer][[0, at]]
            found.append(float(a * b / (a + b - a * b)))
        return Estimate.over_seeds(found)

    def alike(self, starts: str, similarity: str, pair: str, norm: str) -> Estimate:
        """The second task's similarity to the first; its statistics, or its images through the first task's mask."""
        at = 1 + PAIRS.index(pair)
        return Estimate.over_seeds([float(t.values[norm][at, 0]) for t in self.similarity[starts][similarity]])

    def tables(self, arm: str) -> list[OverlapTable]:
        return [table for of_seeds in self.fishers[arm].values() for table in of_seeds]

    def aligned(self, arm: str) -> bool | None:
        readings = {table.alignment.reading("first", "second") for table in self.tables(arm)}
        return (
            {"shared initialisation": True, "no shared initialisation": False}.get(*readings)
            if len(readings) == 1
            else None
        )

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


def compared(first: str, last: str) -> dict[str, tuple[At, At]]:
    """What each question subtracts, the second from the first."""
    pairs = (
        (("8 px", first), ("26 px", first)),
        (("8 px", last), ("26 px", last)),
        (("26 px", last), ("26 px", first)),
        (("8 px", last), ("8 px", first)),
        (("26 px", last), ("random labels", last)),
    )
    return dict(zip(QUESTIONS, pairs, strict=True))


def differences(measure, first: str, last: str) -> dict[str, Estimate]:
    return {question: measure(*a) - measure(*b) for question, (a, b) in compared(first, last).items()}


class Contrast(NamedTuple):
    """One question, asked of one arm."""

    difference: Estimate
    beyond: Estimate | None
    """Of Fishers the same difference of corrected - null: layers differ in what permuted Fishers overlap by."""

    verdict: Verdict | None
    """None where no word stands beside the numbers."""


def contrasts(found: Found) -> dict[str, dict[str, Contrast]]:
    """Contrasts of overlaps over seeds. A second task's rows are the first's: the same test images, changed."""
    answers: dict[str, dict[str, Contrast]] = {}
    for arm, words in ARMS.items():
        corrected, beyond = (
            differences(lambda p, k, a=arm, of=of: found.fisher(of, a, p, k), "fc1", "out")
            for of in ("corrected", "above_null")
        )
        answers[f"Fisher overlap, {words}"] = {
            question: Contrast(
                each,
                beyond[question],
                None if arm in ONE_NETWORK else judged(found, arm, each, beyond[question], places),
            )
            for (question, each), places in zip(corrected.items(), compared("fc1", "out").values(), strict=True)
        }
    for starts, words in zip(STARTS, MASKS, strict=True):
        of = differences(lambda p, k, s=starts: found.mask(s, p, k), "fc1", "out")
        answers[f"{words}, {starts} score initialisations"] = {
            question: Contrast(
                each,
                None,
                contrast_verdict(each, same_rows=True, aligned=True, noise_taken_out=None, effective_sample_size=None)
                if starts == "independent"
                else None,
            )
            for question, each in of.items()
        }
    return answers


def judged(found: Found, arm: str, corrected: Estimate, beyond: Estimate, places: tuple[At, At]) -> Verdict:
    """Say "shares" of a difference of corrected overlaps only where that of corrected - null agrees."""
    every = [Place(table, ("first", "second"), layer) for pair, layer in places for table in found.fishers[arm][pair]]
    known = evidence(corrected, every, "corrected", same_rows=True)
    return judge(replace(known, aligned=(found.aligned(arm),), strange=None, noise_ceilings=None, beyond=beyond))


def similar(found: Found) -> dict[str, dict[str, Estimate]]:
    """The same differences of similarities of tasks, which are no overlaps."""
    return {
        f"{words}, {starts} score initialisations": differences(
            lambda p, k, s=starts, a=name: found.alike(s, a, p, k), "bn1", "bn6"
        )
        for name, words in SIMILARITIES.items()
        for starts in STARTS
    }


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
