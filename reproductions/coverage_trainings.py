"""Do the intervals of overlaps over trainings cover the truth? A simulation in which the truth is known.

    python reproductions/coverage_trainings.py

Two tasks switch every weight on with known probabilities; every training draws its masks from these, independently. The
truth is the coefficient of the expected numbers of common weights. Writes ``results/coverage_trainings.json``, ``.md``.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from records import offer_tables, read_record, write_record, write_tables

from commonweight import Footprint
from commonweight.base.text import Grid
from commonweight.overlaps import overlap_over_seeds

NAME = "coverage_trainings"
WEIGHTS = 4000
COMMON = 0.6
"""Share of the weights on which the second task wants what the first wants."""

STRENGTHS = {"strong": 1.0, "middling": 0.6, "weak": 0.3}
"""How far probabilities go from one half."""


def mask(bits: np.ndarray, start: str) -> Footprint:
    return Footprint(
        "supermask", {"w": torch.from_numpy(bits.astype(np.uint8))}, 1, metadata={"score_initialisation": start}
    )


def coefficient(p: np.ndarray, q: np.ndarray) -> float:
    """The Jaccard index beyond chance of masks with these probabilities, from expected numbers."""
    jaccard, chance = (common / (p.sum() + q.sum() - common) for common in ((p * q).sum(), p.sum() * q.sum() / WEIGHTS))
    return float((jaccard - chance) / (1 - chance))


def setting(strength: str, trainings: int, repetitions: int, seed: int) -> dict:
    """Run one setting."""
    generator = np.random.default_rng([seed, trainings, list(STRENGTHS).index(strength)])
    first, own = generator.random((2, WEIGHTS))
    second = np.where(generator.random(WEIGHTS) < COMMON, first, own)
    p, q = (0.5 + (each - 0.5) * STRENGTHS[strength] for each in (first, second))
    truth = {"noise_ceiling": coefficient(p, p), "between": coefficient(p, q)}
    truth["corrected"] = truth["between"] / (truth["noise_ceiling"] * coefficient(q, q)) ** 0.5
    covered: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(repetitions):
        found = overlap_over_seeds([
            {
                name: mask(generator.random(WEIGHTS) < wanted, f"independent, seed {training}, task {name}")
                for name, wanted in (("p", p), ("q", q))
            }
            for training in range(trainings)
        ])
        estimates = {"noise_ceiling": found.noise_ceiling("p")}
        estimates |= {name: found.estimate(name, "p", "q") for name in ("between", "corrected")}
        for name, estimate in estimates.items():
            if estimate.missing is None:
                covered[name].append(estimate.low <= truth[name] <= estimate.high)
    return {
        "strength": strength,
        "trainings": trainings,
        "repetitions": repetitions,
        "truth": truth,
        "defined": {name: len(each) / repetitions for name, each in covered.items()},
        "coverage": {name: float(np.mean(each)) if each else None for name, each in covered.items()},
    }


def table(found: list[dict]) -> Grid:
    rows = tuple(
        (
            f"{each['strength']}, {each['trainings']}",
            f"{each['truth']['noise_ceiling']:.3f}",
            f"{each['truth']['corrected']:.3f}",
            *("–" if value is None else f"{100 * value:.1f}" for value in each["coverage"].values()),
            f"{100 * each['defined']['corrected']:.0f}",
        )
        for each in found
    )
    title = f"Coverage in per cent of nominal 95 % intervals over trainings ({found[0]['repetitions']} repetitions)"
    head = (
        "tasks, trainings",
        "noise ceiling",
        "corrected",
        "covers: noise ceiling",
        "between",
        "corrected",
        "corrected is defined",
    )
    return Grid(title, head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    offer_tables(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.tables:
        found = [
            setting(strength, trainings, options.repetitions, options.seed)
            for strength in STRENGTHS
            for trainings in (3, 5, 10)
        ]
        write_record(NAME, found)
    write_tables(NAME, [table(read_record(NAME))])


if __name__ == "__main__":
    main()
