"""Do the intervals of overlaps cover the truth? A simulation in which the truth is known.

    python reproductions/coverage.py --repetitions 1000 --out reproductions/results

Three Fishers a, b, c with known means over 2 layers; every repetition draws n examples with squared gradients (the
same examples for all three, with correlated noise), deals them into K folds as a hash does, and computes what
``commonweight.overlap`` computes. The truth is the overlap of the means. Writes coverage.json and coverage.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from commonweight.overlaps.fold_ratios import FoldRatios
from commonweight.overlaps.resampling import Resampled, array_folds

WEIGHTS = 300
LAYERS = {"one": ("one.weight",), "two": ("two.weight",)}
CORRELATION = 0.5
FEW = 20
LEVEL = 0.95


def normal(generator, shape):
    return generator.standard_normal(shape, dtype=np.float32)


class Regime:
    """Per-example Fishers: mean x an example's size x noise of its own."""

    def __init__(self, words, spread=0.5, rare=False, sizes_shared=False, loud=0.0):
        self.words, self.spread, self.rare, self.sizes_shared, self.loud = words, spread, rare, sizes_shared, loud

    def means(self):
        """Means of the three Fishers, ``[3, weights]``, fixed: b is nearer to a than c; layer two is further apart."""
        generator = np.random.default_rng(7)
        base = generator.standard_normal(WEIGHTS)
        apart = np.repeat([0.7, 1.3], WEIGHTS // 2)
        logs = [base, base + apart * generator.standard_normal(WEIGHTS)]
        logs.append(base + 1.6 * apart * generator.standard_normal(WEIGHTS))
        means = np.exp(np.stack(logs))
        self.often = np.exp(generator.uniform(math.log(0.01), 0, WEIGHTS)) if self.rare else None
        # What the loud examples matter to: other weights, half of the trace in all.
        self.quiet, self.others = means, np.exp(generator.standard_normal(means.shape))
        if not self.loud:
            return means
        self.others *= means.sum(axis=1, keepdims=True) / self.others.sum(axis=1, keepdims=True) / self.loud
        return (1 - self.loud) * means + self.loud * self.others

    def draw(self, generator, n):
        """Per-example Fishers ``[3, n, weights]``."""
        same = normal(generator, (n, WEIGHTS))
        drawn = generator.standard_normal((3, n, 1))
        sizes = np.exp(self.spread * (drawn[:1] if self.sizes_shared else drawn) - self.spread**2 / 2)
        is_loud = generator.random((n, 1)) < self.loud if self.loud else None
        squares = []
        for index, size in enumerate(np.broadcast_to(sizes, drawn.shape)):
            mean = self.quiet[index]
            if is_loud is not None:
                mean = np.where(is_loud, self.others[index], mean)
            own = normal(generator, (n, WEIGHTS))
            gradient = CORRELATION * same + math.sqrt(1 - CORRELATION**2) * own
            values = gradient**2 * size * mean
            if self.rare:
                values *= (generator.random((n, WEIGHTS)) < self.often) / self.often
            squares.append(values)
        return np.stack(squares)


REGIMES = {
    "well-behaved": Regime("squared normal gradients, examples of about equal size"),
    "heavy tails": Regime("examples of log-normal size, sigma 1.2", spread=1.2),
    "rare coordinates": Regime("each weight matters to 1 % to 100 % of the examples", rare=True),
    "heavy and rare": Regime(
        "both of these, the size of an example being the same for all three Fishers", 1.2, rare=True, sizes_shared=True
    ),
    "few effective": Regime("examples of log-normal size, sigma 2", spread=2.0),
    "loud examples": Regime("2 % of the examples carry half of the trace, in other weights", loud=0.02),
}


def truths(means):
    roots = np.sqrt(means)

    def cosine(i, j, where):
        x, y = roots[i, where], roots[j, where]
        return float(x @ y / math.sqrt((x @ x) * (y @ y)))

    whole, half = slice(None), WEIGHTS // 2
    ab, ac = cosine(0, 1, whole), cosine(0, 2, whole)
    layers = cosine(0, 1, slice(half)) - cosine(0, 1, slice(half, None))
    return {"overlap": ab, "contrast": ab - ac, "layers": layers}


def one(regime, n, K, generator):
    """Estimates of one repetition, with the smallest number of effective examples and the smallest ceiling."""
    values = regime.draw(generator, n)
    folds = generator.integers(K, size=n)
    while len(np.unique(folds)) < K:
        folds = generator.integers(K, size=n)
    sums = np.stack([values[:, folds == k].sum(axis=1, dtype=np.float64) for k in range(K)]) / n
    S = torch.from_numpy(sums)
    half = WEIGHTS // 2
    parts = {"one.weight": S[:, :, None, :half], "two.weight": S[:, :, None, half:]}
    terms = {name: array_folds(part.contiguous()) for name, part in parts.items()}
    grams = {}
    for name, part in parts.items():
        X = part.sum(0).squeeze(1).sqrt()
        grams[name] = (X @ X.T).numpy()
    ratios = FoldRatios(Resampled(K, terms), grams, LAYERS)
    every, found = tuple(grams), {}
    for of in ("raw", "corrected", "extrapolated"):
        overlap = ratios.estimate(of, 0, 1, every)
        found[of, "overlap"] = overlap
        found[of, "contrast"] = overlap - ratios.estimate(of, 0, 2, every)
        found[of, "layers"] = ratios.estimate(of, 0, 1, LAYERS["one"]) - ratios.estimate(of, 0, 1, LAYERS["two"])
    shares = values.sum(axis=2, dtype=np.float64)
    effective = (shares.sum(axis=1) ** 2 / (shares**2).sum(axis=1)).min()
    return found, float(effective), float(ratios.ceiling.pooled.min())


def cell(regime, n, K, repetitions, seed):
    """Run one setting."""
    means = regime.means()
    truth = truths(means)
    generator = np.random.default_rng([seed, n, K])
    rows, effective, ceilings = {}, [], []
    for _ in range(repetitions):
        found, few, ceiling = one(regime, n, K, generator)
        effective.append(few)
        ceilings.append(ceiling)
        for key, estimate in found.items():
            rows.setdefault(key, []).append((estimate.value, estimate.half_width(LEVEL)))
    enough = np.asarray(effective) >= FEW
    summary = []
    for (of, what), values in rows.items():
        value, half = np.asarray(values).T
        covers = np.abs(value - truth[what]) <= half
        summary.append({
            "of": of,
            "what": what,
            "truth": truth[what],
            "mean": float(value.mean()),
            "standard_deviation": float(value.std(ddof=1)),
            "root_mean_square_error": float(np.sqrt(np.mean((value - truth[what]) ** 2))),
            "half_width": float(half.mean()),
            "coverage": float(covers.mean()),
            "coverage_error": math.sqrt(max(covers.mean() * (1 - covers.mean()), 0.25 / len(covers)) / len(covers)),
            "coverage_of_own_mean": float((np.abs(value - value.mean()) <= half).mean()),
            "coverage_if_enough": float(covers[enough].mean()) if enough.sum() >= 100 else None,
        })
    return {
        "examples": n,
        "folds": K,
        "repetitions": repetitions,
        "effective_examples": [float(x) for x in np.quantile(effective, [0.05, 0.5, 0.95])],
        "ceiling": float(np.mean(ceilings)),
        "share_enough": float(enough.mean()),
        "results": summary,
    }


def markdown(record):
    lines = [
        f"Coverage in per cent of nominal 95 % intervals (jackknife over K folds), {record['repetitions']} repetitions "
        "each; Monte Carlo error about "
        f"{100 * math.sqrt(0.0475 / record['repetitions']):.1f} points. `own` is coverage of the estimate's own mean "
        f"(no bias), `≥ {FEW}` of the truth among repetitions with at least {FEW} effective examples in every Fisher.",
        "",
        "| regime | n | K | effective (median) | ceiling | of | what | truth | mean | sd | covers | own | ≥ 20 |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for setting in record["settings"]:
        for row in setting["results"]:
            enough = row["coverage_if_enough"]
            lines.append(
                f"| {setting['regime']} | {setting['examples']} | {setting['folds']} "
                f"| {setting['effective_examples'][1]:.0f} | {setting['ceiling']:.3f} | {row['of']} | {row['what']} "
                f"| {row['truth']:.3f} | {row['mean']:.3f} | {row['standard_deviation']:.3f} "
                f"| {100 * row['coverage']:.1f} | {100 * row['coverage_of_own_mean']:.1f} "
                f"| {'–' if enough is None else f'{100 * enough:.1f}'} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--examples", type=int, nargs="+", default=[200, 400, 96, 800])
    parser.add_argument("--folds", type=int, nargs="*", default=[4, 5, 16], help="beside 8, at n = 400")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    place = options.out / "coverage.json"
    record = {"seed": options.seed, "repetitions": options.repetitions, "weights": WEIGHTS}
    record["regimes"] = {name: regime.words for name, regime in REGIMES.items()}
    record["settings"] = []
    if place.is_file():  # settings that are there are not run again
        found = json.loads(place.read_text(encoding="utf-8"))
        if all(found[key] == record[key] for key in ("seed", "repetitions", "weights")):
            record["settings"] = found["settings"]
    done = {(each["regime"], each["examples"], each["folds"]) for each in record["settings"]}
    for n, K in [(n, 8) for n in options.examples] + [(400, K) for K in options.folds]:
        for name in options.regimes:
            if (name, n, K) in done:
                continue
            setting = {"regime": name, **cell(REGIMES[name], n, K, options.repetitions, options.seed)}
            record["settings"].append(setting)
            print(f"{name}, n = {n}, K = {K}: {time.monotonic() - started:.0f} s", flush=True)
            order = list(REGIMES)
            record["settings"].sort(key=lambda each: (each["folds"], order.index(each["regime"]), each["examples"]))
            # After every setting, so that what is done is there if the rest is not.
            place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            (options.out / "coverage.md").write_text(markdown(record), encoding="utf-8")


if __name__ == "__main__":
    main()
