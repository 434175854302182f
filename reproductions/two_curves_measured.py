"""The record of two_curves.py, made from the tables of its run: every number per seed, and the verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from two_curves_found import ARMS, LAYERS, ONE_NETWORK, PAIRS, STARTS, At, Contrast, Found, compared, contrasts, similar

import commonweight
from commonweight.base.records import without_nan
from commonweight.overlaps.similarity.means import TaskSimilarity
from commonweight.overlaps.table.evidence import Place, evidence
from commonweight.overlaps.table.table import OverlapTable
from commonweight.verdicts.verdict import Verdict, contrast_verdict, judge

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.base.estimate import Estimate

Tables = dict[str, dict[str, list[OverlapTable]]]
"""Arm -> pair -> the tables of the seeds."""


def record(work: Path, settings: dict, digest: str, seeds: int) -> dict:
    """Every number per seed, with intervals over folds where there are any, and the contrasts over seeds."""
    folders = [work / f"seed-{seed}" for seed in range(seeds)]
    fishers = {
        arm: {pair: [OverlapTable.load(folder / arm / pair) for folder in folders] for pair in PAIRS} for arm in ARMS
    }
    masks = {starts: [OverlapTable.load(folder / f"masks, {starts} starts") for folder in folders] for starts in STARTS}
    of_masks = {starts: [_read(folder / f"masks, {starts} starts.json") for folder in folders] for starts in STARTS}
    numbers = {
        "settings": settings,
        "data_sha256": digest,
        "seeds": seeds,
        "versions": {"torch": torch.__version__, "commonweight": commonweight.__version__},
        "accuracy": {
            arm: {pair: [_read(folder / arm / f"{pair}.json")["accuracy"] for folder in folders] for pair in PAIRS}
            for arm in ARMS
        }
        | {f"masks, {starts} starts": [each["accuracy"] for each in of] for starts, of in of_masks.items()},
        "fisher": {
            arm: {pair: [_of_table(table) for table in tables] for pair, tables in pairs.items()}
            for arm, pairs in fishers.items()
        },
        "masks": {starts: _of_masks(tables) for starts, tables in masks.items()},
        "similarity": {starts: _similarities([each["similarity"] for each in of]) for starts, of in of_masks.items()},
    }
    found = Found(numbers)
    arms = {f"Fisher overlap, {words}": arm for arm, words in ARMS.items()}
    asked = {
        name: {
            question: _of_contrast(each, _verdict(name, arms.get(name), each, places, fishers))
            for (question, each), places in zip(of.items(), compared("fc1", "out").values(), strict=True)
        }
        for name, of in contrasts(found).items()
    }
    asked |= {name: {question: _plain(each) for question, each in of.items()} for name, of in similar(found).items()}
    return without_nan({**numbers, "contrasts_over_seeds": asked})


def _verdict(name: str, arm: str | None, asked: Contrast, places: tuple[At, At], fishers: Tables) -> Verdict | None:
    """A second task's rows are the first's: the same test images, changed."""
    if arm is None:
        if "shared score" in name:
            return None
        return contrast_verdict(
            asked.difference, same_rows=True, aligned=True, noise_taken_out=None, effective_sample_size=None
        )
    if arm in ONE_NETWORK:
        return None
    # "Shares" is said of a difference of corrected overlaps only where that of corrected - null agrees.
    every = [Place(table, ("first", "second"), layer) for pair, layer in places for table in fishers[arm][pair]]
    known = evidence(asked.difference, every, "corrected", same_rows=True)
    readings = {table.alignment.reading("first", "second") for tables in fishers[arm].values() for table in tables}
    aligned = {
        frozenset({"shared initialisation"}): True,
        frozenset({"no shared initialisation"}): False,
    }.get(frozenset(readings))
    return judge(replace(known, aligned=(aligned,), strange=None, noise_ceilings=None, beyond=asked.beyond))


def _of_contrast(asked: Contrast, verdict: Verdict | None) -> dict:
    return (
        _plain(asked.difference)
        | ({} if asked.beyond is None else {"corrected_minus_null": _plain(asked.beyond)})
        | ({} if verdict is None else {"answer": verdict.answer, "reason": verdict.brief})
    )


def _plain(value: Estimate) -> dict:
    return {"value": value.value, "low": value.low, "high": value.high}


def _of_table(table: OverlapTable) -> dict:
    per_layer = {}
    for layer in LAYERS:
        per_layer[layer] = {
            of: _plain(table.estimate(of, "first", "second", layer)) for of in ("raw", "corrected", "above_null")
        } | {
            "null": float(table.null.strictest.by_layer[layer][0, 1]),
            "null_permutes": str(table.null.which(layer)[0, 1]),
            "noise_ceilings": table.noise_ceiling.by_layer[layer].tolist(),
            "trace_shares": table.trace_share[layer].tolist(),
        }
    return {
        "layers": per_layer,
        "pooled": {of: _plain(table.estimate(of, "first", "second")) for of in ("raw", "corrected")},
        "effective_sample_size": list(table.effective_sample_size.values()),
        "weight_distance": float(table.alignment.distance[0, 1]),
        "alignment": table.alignment.reading("first", "second"),
    }


def _of_masks(tables: list[OverlapTable]) -> dict:
    return {
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


def _similarities(records: list[dict]) -> dict:
    found = {}
    for name in ("first_layer", "every_layer", "probed"):
        tables = [TaskSimilarity.from_json(json.dumps(each[name])) for each in records]
        found[name] = {
            pair: {norm: [float(t.values[norm][at, 0]) for t in tables] for norm in tables[0].layers}
            for at, pair in enumerate(PAIRS, 1)
        }
    return found


def _read(path: Path) -> dict:
    found: dict = json.loads(path.read_text(encoding="utf-8"))
    return found
