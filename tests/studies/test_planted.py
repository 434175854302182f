"""Planted locations: routing is exact, the score of a map is right, and a map of one's own gives a table."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from commonweight.studies.planted import MAPS, Planted, PlantedPlan, score_map, score_maps
from commonweight.studies.planted.benchmark import areas, auroc
from commonweight.studies.planted.models import _rows
from commonweight.studies.planted.routing import RoutedAdamW, draw_beside, draw_set, of_others, train_routed

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
    optimizer = RoutedAdamW(model, chosen, steps=5, rate=1e-3)
    for _ in range(5):
        optimizer.step(model(torch.randn(8, 20)).square().mean())
    for name, weight in model.named_parameters():
        inside = chosen[name]
        moved = weight != start.get_parameter(name)
        assert not moved[~inside].any()
        assert moved[inside].all()
        assert 0 < inside.sum() < inside.numel()


@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_the_shortcut_changes_its_set_alone_and_other_rows_change_it_under_soft_routing_only(routing: str) -> None:
    order = torch.Generator().manual_seed(0)
    start = Planted.make(PLAN).initialisation
    chosen = draw_set(start, 0.2, "weights", seed=0)
    before = start
    for rows, moves_inside, moves_outside in (("ordinary", routing == "soft", True), ("planted", True, False)):
        masks = chosen if rows == "planted" else of_others(chosen, routing)
        model = deepcopy(before)
        train_routed(model, _rows(PLAN, rows, 50), masks, steps=2, rate=1e-3, order=order)
        moved = {name: weight != before.get_parameter(name) for name, weight in model.named_parameters()}
        assert any(moved[name][chosen[name]].any() for name in moved) == moves_inside
        assert any(moved[name][~chosen[name]].any() for name in moved) == moves_outside
        before = model


def test_whole_heads_are_whole_and_nothing_else(planted: Planted) -> None:
    of_one = 4 * 16 * 64 + 3 * 16
    for share, heads in ((0.0, 1), (0.05, 1), (0.2, 5)):
        chosen = draw_set(planted.model, share, "heads", seed=0)
        assert sum(int(chosen[name].sum()) for name in chosen) == heads * of_one
        rows = [chosen[name] for name in chosen if name.endswith("query.weight")]
        columns = [chosen[name] for name in chosen if name.endswith("attention.output.dense.weight")]
        for query, output in zip(rows, columns, strict=True):
            assert torch.equal(query.all(1), query.any(1))
            assert torch.equal(output, query.T)


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
        assert torch.equal(again.second_moment[name], made.second_moment[name])
    for score in score_maps(
        {name: MAPS[name] for name in ("Fisher, empirical", "adam_v", "TALL mask")}, PLAN, tmp_path
    ):
        assert 0 < score.pooled < 1
        assert score.credit == score.pooled - max(score.change, score.placebo)


def test_an_untrained_shortcut_is_reported_and_not_scored(tmp_path) -> None:
    table = score_map("mine", lambda *_: pytest.fail("scored"), [PLAN], tmp_path)
    assert table.title.endswith("1 models not scored")
    assert not table.rows
