"""Bits of masks are switched off, and what they hold is found; laws, a planted truth, and a null."""

from __future__ import annotations

import pytest
import torch

from commonweight.base.errors import UsageError
from commonweight.footprints.packed import PackedMasks
from commonweight.interventions import localise_masks
from commonweight.interventions.masks import _sets
from commonweight.interventions.sets import both, equal_parts, size
from commonweight.supermasks.network import SupermaskNetwork


def finished(weight: torch.Tensor, masks: dict[str, torch.Tensor], *more: torch.nn.Module) -> SupermaskNetwork:
    """A linear network of given weights, with given masks."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    net = SupermaskNetwork(torch.nn.Sequential(layer, *more), weights="keep")
    for task, mask in masks.items():
        net.add_task(task)
        scores = net.trainable(task)[0]
        scores.data.copy_(mask.float() - 0.5)
        net.finish(task)
    return net


@pytest.fixture(scope="module")
def planted():
    """Two outputs; the first 10 inputs decide in both masks, 20 more that only one mask has decide nothing."""
    rng = torch.Generator().manual_seed(0)
    signs = torch.where(torch.rand(50, generator=rng) < 0.5, -1.0, 1.0)
    weight = torch.stack([signs, -signs])
    columns = torch.arange(50)
    masks = {
        "a": ((columns < 10) | ((columns >= 10) & (columns < 30))).expand(2, 50),
        "b": ((columns < 10) | (columns >= 30)).expand(2, 50),
    }
    inputs = torch.randn(400, 50, generator=rng)
    labels = ((inputs[:, :10] * signs[:10]).sum(1) < 0).long()
    inputs[:, 10:] *= 0.05
    return finished(weight, masks, torch.nn.BatchNorm1d(2)), {"a": (inputs, labels), "b": (inputs.clone(), labels)}


def values(found):
    return [(each.task, each.off, each.statistics, each.metric, each.score.value) for each in found.cells]


def test_shared_bits_that_hold_everything_are_found_and_the_network_is_what_it_was(planted):
    net, rows = planted
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = localise_masks(net, rows, draws=5, resamples=200)
    assert {each.sentence for each in found.verdicts} == {
        "a∩b in a is necessary",
        "a∩b in b is necessary",
        "a∩b is shared",
        "only a (against b) is not shown to be specific to a",
        "only b (against a) is not shown to be specific to b",
    }
    by = {(each.task, each.off, each.statistics, each.metric): each for each in found.cells}
    for task, statistics in (("a", "stored"), ("b", "re-estimated")):
        assert by[task, "nothing", statistics, "accuracy"].score.value > 0.95
        assert abs(by[task, "shared", statistics, "accuracy"].score.value - 0.5) < 0.15
        assert by[task, "nothing", statistics, "log-likelihood"].difference.value == 0
        assert by[task, "only", statistics, "accuracy"].difference.value < 0.03
        assert by[task, "part of shared", statistics, "accuracy"].bits == 20
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert net.task is None


def test_neither_the_order_of_rows_nor_their_batches_matter(planted):
    net, rows = planted
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    turned = {task: (inputs[order], labels[order]) for task, (inputs, labels) in rows.items()}
    first = localise_masks(net, rows, draws=2, resamples=50)
    second = localise_masks(net, turned, draws=2, resamples=50, batch_size=37)
    assert [each[:-1] for each in values(first)] == [each[:-1] for each in values(second)]
    assert [each[-1] for each in values(first)] == pytest.approx([each[-1] for each in values(second)], abs=1e-6)
    assert [each.score.low for each in first.cells] == pytest.approx(
        [each.score.low for each in second.cells], abs=1e-5
    )
    assert [each.outcome for each in first.verdicts] == [each.outcome for each in second.verdicts]


def test_every_set_lies_in_the_mask_and_matched_parts_match_in_every_bin(planted):
    net, _ = planted
    a, b = (PackedMasks({name: net.bits(task, name) for name in net.masked}) for task in ("a", "b"))
    bins = {"0.weight": (torch.arange(100) % 5).reshape(2, 50)}
    sets = _sets(a, b, bins, 3, 0)
    shared = both(a, b)["0.weight"]
    for off, draws in sets.items():
        for each in draws:
            assert bool((each["0.weight"] <= a["0.weight"]).all())
            assert size(each) == size(sets["only" if off.endswith("for only") else "shared"][0]) or "for" not in off
    for first, second in zip(sets["part of shared"], sets["part of only"], strict=True):
        assert bool((first["0.weight"] <= shared).all())
        assert not bool((second["0.weight"] & shared).any())
        for group in range(5):
            inside = bins["0.weight"] == group
            assert int((first["0.weight"] & inside).sum()) == int((second["0.weight"] & inside).sum())
    assert equal_parts(a, b, 0, {"0.weight": torch.zeros(2, 50)})[0]["0.weight"].sum() == 60


def test_switched_off_bits_come_back_also_after_an_error_and_only_a_finished_mask_has_any(planted):
    net, _ = planted
    before = net.mask("a", "0.weight")
    chosen = {"0.weight": torch.ones(2, 50, dtype=torch.bool)}

    def fail() -> None:
        with net.switched_off("a", chosen):
            assert not net.mask("a", "0.weight").any()
            assert net.mask("b", "0.weight").any()
            raise RuntimeError("meanwhile")

    with pytest.raises(RuntimeError, match="meanwhile"):
        fail()
    assert torch.equal(net.mask("a", "0.weight"), before)
    fresh = SupermaskNetwork(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    fresh.add_task("a")
    with pytest.raises(UsageError, match="not finished"), fresh.switched_off("a", {}):
        pass


def test_random_masks_are_rarely_said_to_hold_something():
    """Labels are what each mask makes of the inputs, so shared bits are as good as any: at most 5 % of runs err."""
    wrong = 0
    for seed in range(8):
        rng = torch.Generator().manual_seed(seed)
        weight = torch.randn(2, 200, generator=rng)
        masks = {task: torch.rand(2, 200, generator=rng) < 0.5 for task in "ab"}
        inputs = torch.randn(200, 200, generator=rng)
        rows = {task: (inputs, (inputs @ (weight * mask).T).argmax(1)) for task, mask in masks.items()}
        found = localise_masks(finished(weight, masks), rows, draws=4, resamples=200)
        wrong += any(each.outcome != "inconclusive" for each in found.verdicts)
    assert wrong <= 1


def test_what_cannot_be_asked_is_refused(planted):
    net, rows = planted
    with pytest.raises(UsageError, match="at least two tasks and two draws, got 1 and 9"):
        localise_masks(net, {"a": rows["a"]})
    with pytest.raises(UsageError, match="half of 'a' has no row"):
        localise_masks(net, {task: (inputs[:1], labels[:1]) for task, (inputs, labels) in rows.items()})


def test_a_task_at_chance_has_costs_but_no_share(planted):
    net, rows = planted
    labels = torch.arange(400) % 2
    found = localise_masks(net, {task: (inputs, labels) for task, (inputs, _) in rows.items()}, draws=2, resamples=50)
    cell = next(each for each in found.cells if each.off == "shared")
    assert "gain of the model over its base" in cell.share.reason
    assert not cell.difference.reason
