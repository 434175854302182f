"""Planted locations: routing is exact, the score of a map is right, and a map of one's own gives a table."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from commonweight.studies.planted import MAPS, Planted, PlantedPlan, score_map, score_maps
from commonweight.studies.planted.benchmark import areas, auroc
from commonweight.studies.planted.routing import RoutedAdamW, draw_beside, draw_set

PLAN = PlantedPlan(steps=2)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted.make(PLAN)


@pytest.mark.parametrize("by", ["weights", "rows"])
def test_updates_outside_the_set_are_exactly_zero_after_momentum_and_weight_decay(by: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 10)
    start = deepcopy(model)
    chosen = draw_set(model, 0.2, by, seed=0)
    optimizer = RoutedAdamW(model, chosen, steps=5)
    for _ in range(5):
        optimizer.step(model(torch.randn(8, 20)).square().mean())
    for name, weight in model.named_parameters():
        inside = chosen[name]
        moved = weight != start.get_parameter(name)
        assert not moved[~inside].any()
        assert moved[inside].all()
        assert 0 < inside.sum() < inside.numel()


def test_whole_rows_are_whole() -> None:
    chosen = draw_set(torch.nn.Linear(20, 10), 0.2, "rows", seed=0)["weight"]
    assert chosen.all(1).sum() == 2
    assert chosen.any(1).sum() == 2


@pytest.mark.parametrize("common", [0.0, 0.25, 1.0])
def test_a_second_set_has_the_planted_share_in_common(common: float) -> None:
    first = draw_set(torch.nn.Linear(40, 10), 0.1, "weights", seed=0)
    second = draw_beside(first, common, seed=0)["weight"]
    assert second.sum() == first["weight"].sum() == 40
    assert (second & first["weight"]).sum() == 40 * common


def test_the_area_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    values, positive = rng.integers(5, size=200).astype(float), rng.random(200) < 0.3
    assert auroc(values, positive) == pytest.approx(roc_auc_score(positive, values))
    assert np.isnan(auroc(values, np.zeros(200, dtype=bool)))


def test_the_planted_set_scores_one_and_noise_a_half(planted: Planted) -> None:
    truth = {name: planted.chosen[name].float() for name in planted.chosen}
    assert areas(truth, planted) == (1.0, 1.0)
    torch.manual_seed(0)
    pooled, mean = areas({name: torch.rand(mask.shape) for name, mask in truth.items()}, planted)
    assert pooled == pytest.approx(0.5, abs=0.02)
    assert mean == pytest.approx(0.5, abs=0.1)


def test_models_are_read_back_and_their_maps_score(planted: Planted, tmp_path) -> None:
    made = Planted.open(PLAN, tmp_path)
    again = Planted.open(PLAN, tmp_path)
    for name, weight in again.model.named_parameters():
        assert torch.equal(weight, made.model.get_parameter(name))
        assert torch.equal(weight, planted.model.get_parameter(name))
    (score,) = score_maps({"Fisher": MAPS["Fisher, empirical"]}, PLAN, tmp_path)
    assert 0 < score.pooled < 1
    assert score.credit == score.pooled - max(score.change, score.placebo)


def test_an_untrained_shortcut_is_reported_and_not_scored(tmp_path) -> None:
    table = score_map("mine", lambda *_: pytest.fail("scored"), [PLAN], tmp_path)
    assert table.title.endswith("1 models not scored")
    assert not table.rows
