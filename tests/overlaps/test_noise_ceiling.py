"""The noise ceiling of one Fisher is the one a table shows, needs folds, and grows with the examples."""

import pytest
import torch

import commonweight
from commonweight import Footprint
from commonweight.base import UsageError
from commonweight.overlaps import noise_ceiling


def fisher_of(count, folds=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    batch = (torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator))
    return commonweight.fisher(model, [batch], folds=folds)


def test_it_is_that_of_a_table_with_its_interval(tmp_path):
    a, b = fisher_of(120), fisher_of(120, seed=1)
    table = commonweight.overlap({"a": a, "b": b})
    found = noise_ceiling(a)
    assert found.pooled.value == pytest.approx(table.noise_ceiling.pooled[0], rel=1e-12)
    assert found.pooled.count == 8
    assert found.pooled.low < found.pooled.value < found.pooled.high
    assert list(found.by_layer) == ["0", "2"]
    for layer, estimate in found.by_layer.items():
        assert estimate.value == pytest.approx(table.noise_ceiling.by_layer[layer][0], rel=1e-12)
    stored = noise_ceiling(Footprint.load(a.save(tmp_path / "a")))
    assert stored.pooled.replicates == pytest.approx(found.pooled.replicates, rel=1e-12)
    with pytest.raises(KeyError, match="no layer '1'"):
        found.by_layer["1"]


def test_more_examples_raise_it():
    few, many = noise_ceiling(fisher_of(40)).pooled, noise_ceiling(fisher_of(2000)).pooled
    assert few.value < many.value - 0.01
    assert many.value > 0.98


def test_without_folds_there_is_none():
    with pytest.raises(UsageError, match=r"at least 2 folds, got kind 'fisher' with 0 folds.*folds=8"):
        noise_ceiling(fisher_of(40, folds=1))
    masks = Footprint("supermask", {"w": torch.tensor([1, 0])}, count=1)
    with pytest.raises(UsageError, match="got kind 'supermask'"):
        noise_ceiling(masks)
    assert noise_ceiling(fisher_of(40, folds=2)).pooled.missing is not None
