"""What goes wrong without the safeguards of overlaps, and what the library says instead: small cases, minutes in all.

    python reproductions/safeguards.py

Writes ``reproductions/results/safeguards.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from records import offer_tables, read_record, write_record, write_tables

import commonweight
from commonweight import Footprint, overlap
from commonweight.base import NotComparableError
from commonweight.base.text import Grid
from commonweight.footprints.copies import CopiesWarning
from commonweight.footprints.folds import fold_of
from commonweight.footprints.footprint import Fold

REPETITIONS = 40
FOLDS = 8


def near(start: torch.nn.Module, by: float) -> torch.nn.Module:
    """A model near the start."""
    model = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model


def measured(model: torch.nn.Module, x, y, rows=None, **options) -> Footprint:
    """A Fisher; without ``rows`` its examples are numbered as they come."""
    batch = {"input": x, "labels": y} if rows is None else {"input": x, "labels": y, "source_row": rows}
    options = {"folds": FOLDS, "loss": "classification"} | options
    return commonweight.fisher(model, [batch], **options)


def spread(values) -> dict[str, float]:
    """Mean, smallest and largest."""
    return {"mean": float(np.mean(values)), "least": float(np.min(values)), "most": float(np.max(values))}


def order() -> dict:
    """200 sparse rows; the second model's loader shuffles."""
    found, refused = [], 0
    for _ in range(REPETITIONS):
        x, y = torch.randn(200, 40) * (torch.rand(200, 40) < 0.08), torch.randint(10, (200,))
        start, shuffled = torch.nn.Linear(40, 10), torch.randperm(200)
        a, b = measured(near(start, 0.05), x, y), measured(near(start, 0.05), x[shuffled], y[shuffled])
        try:
            overlap({"a": a, "b": b})
        except NotComparableError:
            refused += 1
        table = overlap({"a": replace(a, row_digests={}), "b": replace(b, row_digests={})})
        found.append(table.estimate("corrected", "a", "b").value)
    return {"corrected overlap without digests": spread(found), "refused with digests": refused}


def contrasts(draw, network, true_rows: int = 4000) -> dict:
    """Verdicts of one contrast, by what the source rows say: draw gives x, y and {words: source rows}."""
    found: dict[str, dict] = {}
    for _ in range(REPETITIONS):
        start = network()
        models = {name: near(start, 0.06) for name in "abc"}
        x, y, says, more = draw()
        pairs = ("a", "b"), ("a", "c")

        def table(x, y, rows, models=models):
            return overlap({name: measured(model, x, y, rows) for name, model in models.items()})

        truth = table(*more(true_rows)).contrast(*pairs).value
        for words, rows in says.items():
            of = table(x, y, rows)
            verdict = of.verdict(*pairs, same_rows=True)
            here = found.setdefault(words, {"answers": Counter(), "held": 0, "wrong sign": 0, "effective": []})
            here["answers"][verdict.answer] += 1
            here["held"] += verdict.estimate.low <= truth <= verdict.estimate.high
            here["wrong sign"] += verdict.answer != "inconclusive" and verdict.estimate.value * truth < 0
            here["effective"].append(min(of.effective_sample_size.values()))
    for each in found.values():
        each["effective"] = float(np.median(each["effective"]))
        each["answers"] = dict(each["answers"])
    return found


def copies() -> dict:
    """12 examples, 30 copies of each."""
    of_fold = {fold: [row for row in range(400) if fold_of(row, FOLDS) == fold] for fold in range(FOLDS)}
    every_fold = torch.tensor([of_fold[i % FOLDS][i // FOLDS] for i in range(12)])

    def draw():
        x, y = torch.randn(12, 20), torch.randint(3, (12,))
        says = {
            "no source rows": None,
            "a source row for each copy (untrue)": torch.arange(360),
            "one source row for all copies": every_fold.repeat(30),
        }
        return x.repeat(30, 1), y.repeat(30), says, lambda n: (torch.randn(n, 20), torch.randint(3, (n,)), None)

    return contrasts(
        draw, lambda: torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    )


def few_values() -> dict:
    """2000 independent draws of six features of 0 or 1: most rows equal others, and none is a copy."""

    def drawn(n, rows=None):
        return (torch.rand(n, 6) < 0.3).float(), torch.randint(2, (n,)), rows

    def draw():
        x, y, _ = drawn(2000)
        return (
            x,
            y,
            {"no source rows": None, "a source row for each": torch.arange(2000)},
            lambda n: drawn(n, torch.arange(n)),
        )

    return contrasts(
        draw, lambda: torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)), 20000
    )


def same_rows_null(x: np.ndarray, y: np.ndarray) -> float:
    """The overlap of two Fishers less its strictest permutation null, both of the same rows."""
    x, y = (np.sqrt(f / f.sum()) for f in (x, y))
    rows, columns = x.shape
    nulls = (
        x.sum() * y.sum() / x.size, (x.sum(0) * y.sum(0)).sum() / rows, (x.sum(1) * y.sum(1)).sum() / columns
    )  # fmt: skip
    return float((x * y).sum() - max(nulls))


def noise_in_common() -> dict:
    """Two networks near one start with almost flat Fishers, on 200 rows, and on 20,000 for the truth."""
    of_same, above, says_above, true = [], [], 0, []
    for repetition in range(REPETITIONS):
        start = torch.nn.Linear(40, 10, bias=False)
        with torch.no_grad():
            start.weight.mul_(0.1)
        models = [near(start, 0.001) for _ in range(2)]
        x, y = torch.randn(200, 40), torch.randint(10, (200,))
        a, b = (measured(model, x, y) for model in models)
        of_same.append(same_rows_null(a["weight"].double().numpy(), b["weight"].double().numpy()))
        estimate = overlap({"a": a, "b": b}).estimate("above_null", "a", "b")
        above.append(estimate.value)
        says_above += estimate.low > 0
        if repetition < 5:
            x, y = torch.randn(20000, 40), torch.randint(10, (20000,))
            prints = {name: measured(model, x, y) for name, model in zip("ab", models, strict=True)}
            true.append(overlap(prints).estimate("above_null", "a", "b").value)
    return {
        "raw - null on the same rows": spread(of_same), "corrected - null": spread(above),
        "corrected - null above 0": says_above, "on 20,000 rows": spread(true),
    }  # fmt: skip


def short_folds() -> dict:
    """Folds stored in bfloat16: by how much the overlap of a Fisher with another differs from that of its triple."""
    found = {}
    for weights in (2, 30, 3000):
        moved = []
        for _ in range(REPETITIONS):
            one, other = (torch.rand(FOLDS, weights, dtype=torch.float64) ** 4 for _ in range(2))

            def stored(parts):
                parts = parts.to(torch.bfloat16).float()
                folds = tuple(Fold(50, {"w": part}) for part in parts)
                return Footprint("fisher", {"w": parts.mean(0)}, 50 * FOLDS, {"folds": {"map": "one"}}, folds=folds)

            table = overlap({"one": stored(one), "three": stored(3 * one), "other": stored(other)})
            moved.append(abs(table.contrast(("one", "other"), ("three", "other")).value))
        found[str(weights)] = spread(moved)
    return found


def report(record: dict) -> list[Grid]:
    """The cases as tables."""

    def of(found: dict[str, float], digits: int = 4) -> str:
        return f"{found['mean']:.{digits}f} ({found['least']:.{digits}f} to {found['most']:.{digits}f})"

    repetitions = record["repetitions"]

    def verdicts(case: str, title: str) -> Grid:
        header = ("rows", "effective sample size", "interval holds the truth", "verdicts", "of the wrong sign")
        rows = [
            (
                words, f"{found['effective']:.0f}", f"{found['held']} of {repetitions}",
                f"{repetitions - found['answers'].get('inconclusive', 0)} of {repetitions}", str(found["wrong sign"]),
            )
            for words, found in record[case].items()
        ]  # fmt: skip
        return Grid(title, header, tuple(rows))

    order, noise = record["order"], record["noise_in_common"]
    return [
        Grid(
            "200 rows, the loader of one of two models shuffles",
            ("what", "found"),
            (
                ("corrected overlap, digests left out", of(order["corrected overlap without digests"], 2)),
                ("refused, with digests", f"{order['refused with digests']} of {repetitions}"),
            ),
        ),
        verdicts("copies", "12 examples, 30 copies of each"),
        verdicts("few_values", "2000 independent draws of six features of 0 or 1"),
        Grid(
            "Noise in common: two networks near one start, 200 rows",
            ("what", "found"),
            (
                ("overlap - null, on 20,000 rows", of(noise["on 20,000 rows"], 5)),
                ("overlap - null, both of the same 200 rows", of(noise["raw - null on the same rows"])),
                ("corrected - null, as the tables have it", of(noise["corrected - null"])),
                ("its interval lies above 0", f"{noise['corrected - null above 0']} of {repetitions}"),
            ),
        ),
        Grid(
            "Folds in bfloat16: overlap with a third of a Fisher, less that of its triple; truly 0",
            ("weights", "moved by"),
            tuple(
                (weights, f"{found['mean']:.1e} (at most {found['most']:.1e})")
                for weights, found in record["short_folds"].items()
            ),
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    offer_tables(parser)
    if not parser.parse_args().tables:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore", CopiesWarning)
        record: dict = {"repetitions": REPETITIONS}
        for case in (order, copies, few_values, noise_in_common, short_folds):
            torch.manual_seed(0)
            record[case.__name__] = case()
        write_record("safeguards", record)
    write_tables("safeguards", report(read_record("safeguards")))


if __name__ == "__main__":
    main()
