"""The record of two_curves.py, read: estimates over seeds, and the questions asked of them."""

from __future__ import annotations

import math
from typing import NamedTuple

from commonweight.base.estimate import Estimate

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
    """The numbers of the record; estimates are over seeds."""

    def __init__(self, record: dict) -> None:
        self.record = record
        self.accuracy: dict = record["accuracy"]

    def fisher(self, of: str, arm: str, pair: str, layer: str) -> Estimate:
        """``raw``, ``corrected``, ``null`` or ``above_null`` (corrected - null)."""
        found = [each["layers"][layer][of] for each in self.seeds(arm, pair)]
        return over_seeds([each["value"] if isinstance(each, dict) else each for each in found])

    def learned(self, of: str, arm: str, pair: str, layer: str) -> Estimate:
        """How far training moved a number from that of the untrained start."""
        return self.fisher(of, arm, pair, layer) - self.fisher(of, "untrained", pair, layer)

    def share(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two shares of the trace."""
        return over_seeds([min(each["layers"][layer]["trace_shares"]) for each in self.seeds(arm, pair)])

    def noise_ceiling(self, arm: str, pair: str, layer: str) -> Estimate:
        """The smaller of the two noise ceilings."""
        return over_seeds([min(each["layers"][layer]["noise_ceilings"]) for each in self.seeds(arm, pair)])

    def mask(self, starts: str, pair: str, layer: str) -> Estimate:
        """Beyond chance from independent initialisations; raw for flipped bits, whose chance level is not known."""
        of = "beyond_chance" if starts == "independent" else "jaccard"
        return over_seeds([each[of] for each in self.record["masks"][starts][pair][layer]])

    def density(self, starts: str, layer: str, task: str) -> Estimate:
        """The share of a layer's bits that a task keeps, or flipped."""
        at, pair = (0, PAIRS[0]) if task == "first" else (1, task)
        return over_seeds([each["densities"][at] for each in self.record["masks"][starts][pair][layer]])

    def coincidence(self, pair: str, layer: str) -> Estimate:
        """The Jaccard index that flipped bits would have if two tasks of the same densities flipped independently."""
        both = [each["densities"] for each in self.record["masks"]["shared"][pair][layer]]
        return over_seeds([a * b / (a + b - a * b) for a, b in both])

    def alike(self, starts: str, similarity: str, pair: str, norm: str) -> Estimate:
        """The second task's similarity to the first; its statistics, or its images through the first task's mask."""
        return over_seeds(self.record["similarity"][starts][similarity][pair][norm])

    def seeds(self, arm: str, pair: str) -> list[dict]:
        found: list[dict] = self.record["fisher"][arm][pair]
        return found

    def alignment(self, arm: str) -> str:
        every = [each for pair in PAIRS for each in self.seeds(arm, pair)]
        readings = sorted({each["alignment"] for each in every})
        distances = [each["weight_distance"] for each in every]
        return f"{' or '.join(readings)} (relative weight distance {min(distances):.2f} to {max(distances):.2f})"


def over_seeds(values: list) -> Estimate:
    return Estimate.over_seeds([math.nan if value is None else value for value in values])


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


def contrasts(found: Found) -> dict[str, dict[str, Contrast]]:
    """Contrasts of overlaps over seeds."""
    asked: dict[str, dict[str, Contrast]] = {}
    for arm, words in ARMS.items():
        corrected, beyond = (
            differences(lambda p, k, a=arm, of=of: found.fisher(of, a, p, k), "fc1", "out")
            for of in ("corrected", "above_null")
        )
        asked[f"Fisher overlap, {words}"] = {
            question: Contrast(each, beyond[question]) for question, each in corrected.items()
        }
    for starts, words in zip(STARTS, MASKS, strict=True):
        of = differences(lambda p, k, s=starts: found.mask(s, p, k), "fc1", "out")
        asked[f"{words}, {starts} score initialisations"] = {
            question: Contrast(each, None) for question, each in of.items()
        }
    return asked


def similar(found: Found) -> dict[str, dict[str, Estimate]]:
    """The same differences of similarities of tasks, which are no overlaps."""
    return {
        f"{words}, {starts} score initialisations": differences(
            lambda p, k, s=starts, a=name: found.alike(s, a, p, k), "bn1", "bn6"
        )
        for name, words in SIMILARITIES.items()
        for starts in STARTS
    }
