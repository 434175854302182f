"""Do the intervals of overlaps cover the truth? A simulation in which the truth is known.

    python reproductions/interval_coverage.py --repetitions 1000 --out reproductions/results

Three Fishers a, b, c with known means over 2 layers (coverage_regimes.py); every repetition draws n examples with
squared gradients (the same examples for all three, with correlated noise), deals them into K folds as a hash does, and
computes what ``commonweight.overlap`` computes. The truth is the overlap of the means, the null that of the means, and
over trainings the mean of these. Settings that are in interval_coverage.json are not run again. Writes that and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from coverage_regimes import HALF, REGIMES, SETTINGS, WEIGHTS

from commonweight.base.estimate import LEVEL, Estimate
from commonweight.overlaps.resampling.ratios import FoldRatios, Resampled
from commonweight.overlaps.resampling.sums import array_folds
from commonweight.verdicts.rules import ROUNDING

FEW = 20


def one(regime, n, K, generator):
    """Estimates of one repetition, with the smallest effective sample size and the smallest noise ceiling."""
    values = regime.draw(generator, n)
    folds = generator.integers(K, size=n)
    while len(np.unique(folds)) < K:
        folds = generator.integers(K, size=n)
    sums = np.stack([values[:, folds == k].sum(axis=1, dtype=np.float64) for k in range(K)]) / n
    S = torch.from_numpy(sums)
    parts = {"one.weight": S[:, :, :HALF], "two.weight": S[:, :, HALF:]}
    terms = {name: array_folds(part.unflatten(2, (regime.rows, -1)).contiguous()) for name, part in parts.items()}
    grams = {}
    for name, part in parts.items():
        X = part.sum(0).sqrt()
        grams[name] = (X @ X.T).numpy()
    ratios = FoldRatios(Resampled(K, terms), grams)

    def estimate(versions, j, parameters):
        value, *without = versions(parameters)[:, 0, j].tolist()
        return Estimate(value, tuple(without), "folds")

    every, found = tuple(grams), {}
    for of, versions in (("raw", ratios.raw), ("corrected", ratios.corrected)):
        overlap = estimate(versions, 1, every)
        found[of, "overlap"] = overlap
        found[of, "contrast"] = overlap - estimate(versions, 2, every)
        found[of, "layers"] = estimate(versions, 1, ("one.weight",)) - estimate(versions, 1, ("two.weight",))
    found["corrected", "above null"] = estimate(lambda p: ratios.corrected(p) - ratios.nulls(p)[-1], 1, every)
    shares = values.sum(axis=2, dtype=np.float64)
    effective = (shares.sum(axis=1) ** 2 / (shares**2).sum(axis=1)).min()
    return found, float(effective), float(ratios.noise_ceiling(every)[0].min())


def over_seeds(regime, n, K, generator):
    """As :func:`one`, over several trainings."""
    each = [one(regime.trained(generator), n, K, generator) for _ in range(regime.trainings)]
    found = {key: Estimate.over_seeds([values[key].value for values, _, _ in each]) for key in each[0][0]}
    return found, min(few for _, few, _ in each), min(noise_ceiling for _, _, noise_ceiling in each)


def cell(regime, n, K, repetitions, seed):
    """Run one setting."""
    truth = regime.truths()
    generator = np.random.default_rng([seed, n, K])
    rows, effective, noise_ceilings = {}, [], []
    for _ in range(repetitions):
        found, few, noise_ceiling = (over_seeds if regime.trainings else one)(regime, n, K, generator)
        effective.append(few)
        noise_ceilings.append(noise_ceiling)
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
            "above_0": float((value - half > ROUNDING).mean()),
            "below_0": float((value + half < -ROUNDING).mean()),
        })
    return {
        "examples": n,
        "folds": K,
        "repetitions": repetitions,
        "effective_sample_size": [float(x) for x in np.quantile(effective, [0.05, 0.5, 0.95])],
        "noise_ceiling": float(np.mean(noise_ceilings)),
        "share_enough": float(enough.mean()),
        "results": summary,
    }


def markdown(record):
    lines = [
        f"Coverage in per cent of nominal 95 % intervals (jackknife over K folds), {record['repetitions']} repetitions "
        "each; Monte Carlo error about "
        f"{100 * math.sqrt(0.0475 / record['repetitions']):.1f} points. `own` is coverage of the estimate's own mean "
        f"(no bias), `≥ {FEW}` of the truth among repetitions with an effective sample size of at least {FEW} in every "
        "Fisher. `above` and `below`: how often the interval lies above and below 0.",
        "",
        "| regime | n | K | effective (median) | noise ceiling | of | what | truth | mean | sd "
        "| covers | own | ≥ 20 | above | below |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for setting in record["settings"]:
        for row in setting["results"]:
            enough = row["coverage_if_enough"]
            lines.append(
                f"| {setting['regime']} | {setting['examples']} | {setting['folds']} "
                f"| {setting['effective_sample_size'][1]:.0f} | {setting['noise_ceiling']:.3f} "
                f"| {row['of']} | {row['what']} "
                f"| {row['truth']:.3f} | {row['mean']:.3f} | {row['standard_deviation']:.3f} "
                f"| {100 * row['coverage']:.1f} | {100 * row['coverage_of_own_mean']:.1f} "
                f"| {'–' if enough is None else f'{100 * enough:.1f}'} "
                + " ".join(f"| {100 * row[end]:.1f}" if end in row else "| –" for end in ("above_0", "below_0"))
                + " |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tables", action="store_true", help="write the table anew from the JSON; simulate nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    place = options.out / "interval_coverage.json"
    if options.tables:
        found = json.loads(place.read_text(encoding="utf-8"))
        (options.out / "interval_coverage.md").write_text(markdown(found), encoding="utf-8")
        return
    record = {"seed": options.seed, "repetitions": options.repetitions, "weights": WEIGHTS}
    record["regimes"] = {name: regime.words for name, regime in REGIMES.items()}
    record["settings"] = []
    if place.is_file():  # settings that are there are not run again
        found = json.loads(place.read_text(encoding="utf-8"))
        if all(found[key] == record[key] for key in ("seed", "repetitions", "weights")):
            record["settings"] = found["settings"]
    done = {(each["regime"], each["examples"], each["folds"]) for each in record["settings"]}
    for name, n, K in SETTINGS:
        if (name, n, K) in done or name not in options.regimes:
            continue
        setting = {"regime": name, **cell(REGIMES[name], n, K, options.repetitions, options.seed)}
        record["settings"].append(setting)
        print(f"{name}, n = {n}, K = {K}: {time.monotonic() - started:.0f} s", flush=True)
        order = list(REGIMES)
        record["settings"].sort(key=lambda each: (each["folds"], order.index(each["regime"]), each["examples"]))
        # After every setting, so that what is done is there if the rest is not.
        place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (options.out / "interval_coverage.md").write_text(markdown(record), encoding="utf-8")


if __name__ == "__main__":
    main()
