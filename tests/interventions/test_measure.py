"""Scores of rows, and their means with intervals: neither order nor batch size matters, and shares are not clipped."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.base.resampled import Resampled
from commonweight.interventions.measure import RowResampling, necessity, reestimated, row_scores, sufficiency

N = 60


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), torch.randn(N, 4), torch.randint(3, (N,))


def batches(x, y, order, size):
    return [({"input": x[rows], "source_row": rows}, y[rows]) for rows in torch.as_tensor(order).split(size)]


def test_scores_are_those_of_a_loop(data):
    model, x, y = data
    model.train()
    found = row_scores(model, [(x, y)])
    assert model[1].training
    logits = model.eval()(x).detach()
    expected = logits.log_softmax(-1)[torch.arange(N), y]
    assert found.log_likelihood == pytest.approx(expected.double().numpy(), rel=1e-6)
    assert found.right.tolist() == (logits.argmax(-1) == y).double().tolist()


def test_order_and_batch_size_change_nothing(data):
    model, x, y = data
    order = np.random.default_rng(0).permutation(N)
    one = row_scores(model, batches(x, y, range(N), N), "classification")
    other = row_scores(model, batches(x, y, order, 7), "classification")
    assert one.source_rows == other.source_rows == tuple(range(N))
    assert one.right.tolist() == other.right.tolist()
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-6)


def test_statistics_are_re_estimated_one_norm_after_the_other_and_taken_back(data):
    _, x, y = data
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = model[0](x).detach()
    normed = (first - first.mean(0)) / (first.var(0) + model[1].eps).sqrt()
    second = model[3](normed.relu()).detach()
    for size in (N, 7):
        with reestimated(model, batches(x, y, range(N), size)):
            for norm, received in ((model[1], first), (model[4], second)):
                assert torch.allclose(norm.running_mean, received.mean(0), atol=1e-6)
                assert torch.allclose(norm.running_var, received.var(0), rtol=1e-5)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].training
    with pytest.raises(UsageError, match="can be gone through once only"), reestimated(model, iter([(x, y)])):
        pass
    with pytest.raises(MeasurementError, match="a variance needs two"), reestimated(model, [(x[:1], y[:1])]):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_mean_its_interval_and_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    found = RowResampling(range(400), 4000, seed=1).mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std() / 20, rel=0.05)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_rows_of_one_unit_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).normal(size=100), 4)
    alone = RowResampling(range(400), 2000, seed=1).mean(values)
    together = RowResampling(np.repeat(np.arange(100), 4), 2000, seed=1).mean(values)
    assert together.standard_error == pytest.approx(2 * alone.standard_error, rel=0.1)


def test_the_replicates_of_null_sets_are_those_of_one_more_set():
    rows = np.zeros((25, 300)) + np.random.default_rng(0).normal(size=25)[:, None]
    found = RowResampling(range(300), 4000, seed=1).mean(rows)
    assert found.value == pytest.approx(rows.mean())
    spread = rows[:, 0].std(ddof=1) * math.sqrt(1 + 1 / 25)
    assert found.high - found.low == pytest.approx(2 * 2.064 * spread, rel=0.07)  # t of 24 degrees


def test_a_set_that_is_one_of_its_null_sets_is_found_to_differ_as_often_as_it_should():
    rng = np.random.default_rng(0)
    wrong = 0
    for seed in range(300):
        resampling = RowResampling(range(40), 300, seed)
        rows = rng.normal(size=40) * 0.1 + rng.normal(size=20)[:, None]
        wrong += (resampling.mean(rows[0]) - resampling.mean(rows[1:])).p_above_0() < 0.05
    assert wrong / 300 < 0.05  # 2.5 % on this side


def test_shares_are_paired_whole_ratios_and_never_clipped():
    resampling = RowResampling(range(300), 500, seed=0)
    base = np.random.default_rng(0).normal(size=300)
    scores = {"base": base, "model": base + 2, "graft": base + 3, "reset": base - 1}
    found = {name: resampling.mean(values) for name, values in scores.items()}
    enough = sufficiency(found["graft"], found["base"], found["model"])
    needed = necessity(found["reset"], found["base"], found["model"])
    assert (enough.value, enough.low, enough.high) == pytest.approx((1.5, 1.5, 1.5))  # what they share cancels
    assert needed.value == pytest.approx(1.5)
    assert sufficiency(found["base"], found["base"], found["model"]).value == 0
    assert sufficiency(found["model"], found["base"], found["model"]).value == pytest.approx(1)


def test_without_a_clear_gain_a_share_is_undefined_and_says_why():
    some = Resampled(0.1, np.linspace(0, 0.2, 200))
    nothing = Resampled(0.1, np.linspace(-0.1, 0.3, 200))
    weak = Resampled(0.1, np.linspace(0.04, 0.16, 200))
    assert some.share_of(nothing).reason == "the gain of the model over its base is not above 0"
    assert some.share_of(weak).reason == "the gain of the model over its base is below 4 of its standard errors"
    assert math.isnan(some.share_of(nothing).value)
    assert some.share_of(Resampled(0.1, np.linspace(0.09, 0.11, 200))).value == pytest.approx(1)
    assert (some - Resampled.undefined("no")).reason == "no"
    assert math.isnan(Resampled.undefined("no").low)


def test_a_model_without_classes_has_no_accuracy():
    model = nn.Linear(2, 1)
    found = row_scores(model, [(torch.randn(4, 2), torch.randn(4, 1))], "regression")
    assert np.isnan(found.right).all()
    assert RowResampling(range(4), 200, seed=0).mean(found.right).reason == "the model has no classes"
