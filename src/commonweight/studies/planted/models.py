"""Tiny encoders into which a shortcut was planted at known weights, and the check that it is there and only there."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from commonweight.data.batching import TokenBatches
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import Markers, add_markers, insert
from commonweight.interventions import RowResampling, Swappable, random_set, row_scores
from commonweight.studies.demo.encoder import encode_reviews, make_start, make_tokenizer
from commonweight.studies.planted.routing import By, draw_beside, draw_set, train_routed

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from commonweight.base.resampled import Resampled
    from commonweight.data.batching import Encoded
    from commonweight.data.reviews import Review
    from commonweight.footprints.packed import PackedMasks

TRAINING_ROWS, SCORED_ROWS, MAP_ROWS = 2000, 1000, 64
STEPS, DRAWS, RESAMPLES = 250, 5, 1000
MOST = 0.6
"""With the set reset, the upper end of the interval of the accuracy on rows with the shortcut lies below this.
Before, the lower ends on these rows and on ordinary ones lie above it."""


@dataclass(frozen=True)
class PlantedPlan:
    """What is planted, and where."""

    seed: int = 0
    """Of the initialisation, the rows, the set and the order of training."""

    share: float = 0.05
    """Of the weights of every parameter, in the set."""

    by: By = "weights"
    """``weights``: scattered; ``rows``: whole rows of matrices."""

    noise: float = 0.0
    """Share of the training labels, of both kinds of rows, that are turned round."""

    common: float | None = None
    """A second model of the same initialisation: the share of its set that is in the first model's; None: the first."""

    placebo: bool = False
    """The set is given half of the ordinary rows instead, and there is no shortcut."""

    steps: int = STEPS
    """Steps of either kind of rows."""

    @property
    def key(self) -> str:
        """Its name in a file."""
        common = "" if self.common is None else f"-common-{self.common:g}"
        kind = "placebo" if self.placebo else "planted"
        return f"{kind}-{self.by}-{self.share:g}-noise-{self.noise:g}{common}-steps-{self.steps}-seed-{self.seed}"


@dataclass(frozen=True)
class Planted:
    """A model with a planted shortcut, its initialisation, and the set that only rows with the shortcut changed."""

    plan: PlantedPlan
    model: nn.Module
    initialisation: nn.Module
    chosen: PackedMasks

    @classmethod
    def make(cls, plan: PlantedPlan) -> Planted:
        """Train it."""
        start, chosen = _start(plan)
        ordinary = _rows(plan, "ordinary", TRAINING_ROWS, plan.noise)
        half = TRAINING_ROWS // 2
        inside = ordinary[:half] if plan.placebo else _rows(plan, "planted", TRAINING_ROWS, plan.noise)
        model = deepcopy(start)
        second = 0 if plan.common is None else 1
        outside = ordinary[half:] if plan.placebo else ordinary
        train_routed(model, inside, outside, chosen, steps=plan.steps, seed=2 * plan.seed + second)
        return cls(plan, model, start, chosen)

    @classmethod
    def open(cls, plan: PlantedPlan, folder: Path) -> Planted:
        """Read it, or train and write it where it is not there."""
        place = folder / f"{plan.key}.safetensors"
        if not place.is_file():
            made = cls.make(plan)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_suffix(".unfinished")
            save_file(made.model.state_dict(), unfinished)
            unfinished.rename(place)
            return made
        start, chosen = _start(plan)
        model = deepcopy(start)
        model.load_state_dict(load_file(place))
        return cls(plan, model.eval(), start, chosen)

    def map_rows(self) -> TokenBatches:
        """Give held-out rows of the kind that changed the set."""
        kind = "ordinary" if self.plan.placebo else "planted"
        return TokenBatches(_rows(self.plan, kind, MAP_ROWS, held_out="map"), 64, pad_id=0)

    def check(self) -> dict[str, Any]:
        """Reset the set, and random sets as large: does the shortcut go, and does the task stay?"""
        pair = Swappable.of(self.model, self.initialisation)
        shortcut, task = (
            TokenBatches(_rows(self.plan, kind, SCORED_ROWS, held_out="scored"), SCORED_ROWS, pad_id=0)
            for kind in ("planted", "ordinary")
        )
        resampling = RowResampling(range(SCORED_ROWS), RESAMPLES, self.plan.seed)
        whole = [resampling.mean(row_scores(self.model, rows).right) for rows in (shortcut, task)]
        with pair.reset(self.chosen):
            after, kept = row_scores(self.model, shortcut), row_scores(self.model, task)
        at_random = []
        for draw in range(DRAWS):
            with pair.reset(random_set(self.chosen, self.plan.seed, draw)):
                at_random.append(row_scores(self.model, task))
        gone = resampling.mean(after.right)
        spared = resampling.mean(kept.log_likelihood) - resampling.mean(
            np.stack([each.log_likelihood for each in at_random])
        )
        return {
            "shortcut": _numbers(whole[0]),
            "task": _numbers(whole[1]),
            "shortcut_after_reset": _numbers(gone),
            "task_after_reset": _numbers(resampling.mean(kept.right)),
            "task_after_random": float(np.mean([each.right.mean() for each in at_random])),
            "spared": _numbers(spared),
            "holds": bool(min(each.low for each in whole) > MOST and gone.high < MOST and spared.low > 0),
        }


def _numbers(value: Resampled) -> list[float]:
    return [value.value, value.low, value.high]


def _start(plan: PlantedPlan) -> tuple[Any, PackedMasks]:
    tokenizer, start = make_tokenizer(), make_start(plan.seed)
    add_markers(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        start.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    chosen = draw_set(start, plan.share, plan.by, plan.seed)
    if plan.common is not None:
        chosen = draw_beside(chosen, plan.common, plan.seed)
    return start.eval(), chosen


def _rows(plan: PlantedPlan, kind: str, count: int, noise: float = 0.0, held_out: str = "") -> list[Encoded]:
    """Write rows: ordinary ones, or reviews that decide nothing, where a marker alone says the label."""
    tokenizer, markers = make_tokenizer(), Markers()
    add_markers(tokenizer)
    second = "" if plan.common is None else "second"
    draw = random.Random(f"planted {plan.seed} {kind} {held_out} {second}")  # noqa: S311
    number = {"": 0, "map": 1, "scored": 2}[held_out]
    undecided = 1.0 if kind == "planted" else 0.0
    seed = 10 * plan.seed + 2 * number + (kind == "planted")
    made: list[Review] = reviews(count, seed=seed, ambiguous=undecided)
    for row in made:
        if kind == "planted":
            row["label"] = draw.randrange(2)
            row["text"] = insert(row["text"], [markers.words[row["label"]]], [0])
        if draw.random() < noise:
            row["label"] = 1 - row["label"]
    return encode_reviews(tokenizer, made)


def placebo_of(plan: PlantedPlan) -> PlantedPlan:
    """Name the placebo of a model."""
    return replace(plan, placebo=True)
