"""Fused weights in place: the same as a fused copy, and gone afterwards."""

import copy

import pytest
import torch
from fusion.conftest import moved, small
from torch import nn

from commonweight import fisher, fuse
from commonweight.base import MeasurementError, NotComparableError, UsageError
from commonweight.fusion import fused_at, interpolation_path


def same(a, b):
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


def places(model):
    return [tensor.data_ptr() for tensor in model.state_dict().values()]


def test_a_curve_equals_fused_copies_and_leaves_no_trace(trio):
    before, where = [copy.deepcopy(model) for model in trio], places(trio[0])
    for point in interpolation_path((1, 0, 0), (0, 0.5, 0.5), 5):
        with fused_at(trio, point) as model:
            assert model is trio[0]
            assert same(model, fuse(before, point))
            assert places(model) == where
            assert same(trio[1], before[1])
        assert same(trio[0], before[0])
    assert places(trio[0]) == where
    assert all(same(a, b) for a, b in zip(trio, before, strict=True))


def test_every_method(trio):
    before, base = copy.deepcopy(trio), small()
    with fused_at(trio, method="task_arithmetic", base=base, scale=0.5) as model:
        assert same(model, fuse(before, method="task_arithmetic", base=base, scale=0.5))
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    footprints = [fisher(model, [(x, (x[:, i] > 0).long())]) for i, model in enumerate(trio)]
    with fused_at(trio, [0.2, 0.3, 0.5], "fisher", footprints=footprints) as model:
        heard = []  # 20 rows are few
        expected = fuse(before, [0.2, 0.3, 0.5], "fisher", footprints=footprints, note=heard.append)
        assert same(model, expected)
    assert same(trio[0], before[0])


def test_an_error_within_puts_the_weights_back(trio):
    before = copy.deepcopy(trio[0])

    def fail(model):
        assert not same(model, before)
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"), fused_at(trio) as model:
        fail(model)
    assert same(trio[0], before)
    with torch.no_grad():
        trio[2][2].bias.fill_(float("nan"))  # the last tensor: all others are already fused
    with pytest.raises(MeasurementError, match=r"2\.bias of 'model 3'"), fused_at(trio):
        pass
    assert same(trio[0], before)


def test_mode_gradients_and_optimisers_stay(trio):
    model = trio[0].train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.ones(1, 3)).sum().backward()
    gradient = model[0].weight.grad.clone()
    with fused_at(trio[:2]) as found:
        assert found.training
    assert torch.equal(model[0].weight.grad, gradient)
    before = model[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(model[0].weight, before - gradient)


def test_tensors_that_share_memory_are_fused_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.randn(3, 3))
            self.other = nn.Parameter(self.one.detach())  # another parameter on the same memory

    a, b = Shared(), Shared()
    before = a.one.detach().clone()
    with fused_at([a, b]) as model:
        assert torch.allclose(model.one, (before + b.one) / 2)
    assert torch.equal(a.one, before)


def test_buffers_are_fused_and_put_back():
    start = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    a, b = moved(start, 1), moved(start, 2)
    b(torch.randn(5, 3))
    before = copy.deepcopy(a)
    with fused_at([a, b]) as model:
        assert torch.allclose(model[1].running_mean, b[1].running_mean / 2)
        assert model[1].num_batches_tracked == 0
    assert same(a, before)


def test_what_is_refused(trio):
    with pytest.raises(UsageError, match="sum to 1"), fused_at(trio, [1, 1, 1]):
        pass
    with pytest.raises(UsageError, match="model 2 is a str"), fused_at([trio[0], "runs/a"]):
        pass
    with pytest.raises(NotComparableError, match="not of one class"), fused_at([trio[0], nn.Linear(3, 4)]):
        pass
