"""Batch-norm statistics per task: moved by their own training only, measured anew, probed, and matched to weights."""

import pytest
import torch
from supermasks.supermask_nets import Residual, everything_of, mlp, network, outputs, rows, train
from torch import nn

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.supermasks.network import SupermaskNetwork


def test_running_statistics_follow_pytorch_exactly():
    for momentum in (0.1, None):
        model = mlp()
        model[1].momentum = model[4].momentum = momentum
        net = network("a", "b", model=model)
        net.switch("a")
        plain = mlp()
        plain[1].momentum = plain[4].momentum = momentum
        with torch.no_grad():
            for i in (0, 3, 6):
                plain[i].weight.copy_(net.model[i].weight)
                plain[i].bias.zero_()
        for seed in range(3):
            inputs, _ = rows(seed)
            assert torch.equal(net(inputs), plain(inputs))
        for name, layer in (("1", plain[1]), ("4", plain[4])):
            held = net.statistics("a")[name]
            assert torch.equal(held.mean, layer.running_mean)
            assert torch.equal(held.variance, layer.running_var)
            assert held.batches == 3
            assert net.statistics("b")[name].batches == 0
            assert not net.statistics("b")[name].mean.any()


def test_affine_parameters_are_shared_or_trained_per_task():
    shared, own = network("a", "b"), network("a", "b", batch_norm="affine")
    assert len(shared.trainable("a")) == 3
    assert len(own.trainable("a")) == 3 + 4
    inputs, _ = rows()
    before = outputs(own, "b", inputs)
    train(own, "a")
    assert (own.trainable("a")[3] != 1).any()
    assert (own.trainable("b")[3] == 1).all()
    assert torch.equal(outputs(own, "b", inputs), before)
    train(shared, "a")
    assert (shared.model[1].norm.weight == 1).all()


def test_measuring_anew_is_exact_and_does_not_depend_on_batches():
    inputs, _ = rows(3, 57)
    results = []
    for size in (5, 57):
        net = network("a")
        train(net, "a")
        running = net.statistics("a")
        net.reestimate("a", [(batch, None) for batch in inputs.split(size)])
        results.append(net.statistics("a"))
        seen = net.probe("a", list(inputs.split(10)))
        for name, held in net.statistics("a").items():
            torch.testing.assert_close(held.mean, seen[name].mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(held.variance, seen[name].variance, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(held.mean, running[name].mean, rtol=1e-2)
    for name in ("1", "4"):
        torch.testing.assert_close(results[0][name].mean, results[1][name].mean, rtol=1e-5, atol=1e-6)
    assert results[0]["1"].batches == 12
    net.switch("a")
    net.eval()
    first = nn.functional.linear(inputs, net.model[0].weight)
    torch.testing.assert_close(results[0]["1"].mean, first.mean(0))
    torch.testing.assert_close(results[0]["1"].variance, first.var(0))


def test_measuring_anew_leaves_everything_else():
    net = network("a", "b")
    train(net, "a")
    train(net, "b")
    inputs, _ = rows(3)
    other, scores = everything_of(net, "b"), net.scores("a", "0.weight")
    net.train()
    net.model[2].eval()
    net.reestimate("a", [inputs])
    assert net.task == "b"
    assert net.training
    assert net.model[1].training
    assert not net.model[2].training
    assert everything_of(net, "b") == other
    assert torch.equal(net.scores("a", "0.weight"), scores)


def test_measuring_needs_rows_that_can_be_gone_through_again():
    net = network("a")
    inputs, _ = rows()
    before = everything_of(net, "a")
    with pytest.raises(UsageError, match="gone through once only"):
        net.reestimate("a", iter([inputs]))
    with pytest.raises(UsageError, match="at least one"):
        net.reestimate("a", [])
    with pytest.raises(MeasurementError, match="1 received 1 values per unit"):
        net.reestimate("a", [inputs[:1]])
    with pytest.raises(MeasurementError, match="nan or infinity"):
        net.reestimate("a", [inputs * float("nan")])
    with pytest.raises(UsageError, match="a batch must be a tensor"):
        net.reestimate("a", ["words"])
    assert everything_of(net, "a") == before
    plain = network("a", model=mlp(norm=False))
    plain.reestimate("a", [inputs])  # nothing to measure
    assert plain.norms == ()
    assert plain.statistics("a") == {}


def test_probing_normalises_with_what_is_stored():
    net = network("a")
    train(net, "a")
    net.finish("a", keep_scores=False)
    stored = net.statistics("a")
    inputs, _ = rows(8)
    seen = net.probe("a", list(inputs.split(16)))
    net.switch("a")
    first = nn.functional.linear(inputs, net.model[0].weight)
    torch.testing.assert_close(seen["1"].mean, first.mean(0))
    hidden = (first - stored["1"].mean) / (stored["1"].variance + 1e-5).sqrt()
    second = nn.functional.linear(hidden.relu(), net.model[3].weight)
    torch.testing.assert_close(seen["4"].mean, second.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["4"].variance, second.var(0), rtol=1e-4, atol=1e-5)
    assert list(seen) == list(net.norms)


def test_norms_behind_weights_of_an_mlp_and_none_without():
    inputs, _ = rows()
    assert network().norm_behind(inputs) == {"0.weight": "1", "3.weight": "4", "6.weight": None}
    without = network(model=mlp(norm=False))
    assert without.norm_behind((inputs, None)) == dict.fromkeys(without.masked)
    late = network(model=nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Dropout(), nn.BatchNorm1d(4)))
    assert late.norm_behind(inputs) == {"0.weight": None, "2.weight": "4"}


def test_norms_behind_weights_of_a_residual_network():
    net = network("a", model=Residual())
    behind = {"stem": "bn0", "conv1": "bn1", "conv2": "bn2", "short": "bn3", "head": None}
    assert net.norm_behind(rows(shape=(2, 8, 8))[0]) == {f"{layer}.weight": norm for layer, norm in behind.items()}
    assert net.task is None
    assert net.training


class Parallel(nn.Module):
    """Called in another order than the data flow: both layers, then both norms; one norm is used for pre-activation."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.bare, self.after = (nn.Linear(6, 6) for _ in range(4))
        self.norm_right, self.norm_left, self.pre = (nn.BatchNorm1d(6) for _ in range(3))

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        right, left = self.norm_right(right), self.norm_left(left)
        return self.after(self.pre(self.bare((left + right).relu()) + x).relu())


def test_norms_behind_weights_follow_the_data_and_not_the_calls():
    net = network(model=Parallel())
    assert net.norm_behind(rows()[0]) == {
        "left.weight": "norm_left", "right.weight": "norm_right", "bare.weight": "pre", "after.weight": None,
    }  # fmt: skip


class Activated(nn.BatchNorm2d):
    """A batch norm of somebody else's, which does more."""

    def forward(self, inputs):
        return super().forward(inputs).relu()


def test_other_dimensions_and_subclasses_of_batch_norm():
    models = {
        (2, 8): nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(18, 3)),
        (2, 5, 5): nn.Sequential(nn.Conv2d(2, 3, 3), Activated(3), nn.Flatten(), nn.Linear(27, 3)),
        (2, 3, 3, 3): nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3, affine=False), nn.Flatten(), nn.Linear(3, 3)),
    }
    for shape, model in models.items():
        net = network("a", "b", model=model, batch_norm="affine")
        inputs, labels = rows(shape=shape)
        train(net, "a", data=(inputs, labels))
        before = everything_of(net, "a")
        train(net, "b", data=(inputs, labels))
        assert everything_of(net, "a") == before
        net.reestimate("a", [inputs])
        assert net.norm_behind(inputs) == {"0.weight": "1", "3.weight": None}
        with net.superposed({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}):
            assert torch.equal(net(inputs), outputs(net, "a", inputs))


def test_synchronised_batch_norm_keeps_statistics_per_task():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(mlp())
    net = network("a", "b", model=model)
    assert net.norms == ("1", "4")
    inputs, _ = rows()
    net.reestimate("a", [inputs])
    assert net.statistics("b")["1"].batches == 0
    assert not torch.equal(outputs(net, "a", inputs), outputs(net, "b", inputs))


def test_a_batch_norm_used_twice_has_one_set_of_statistics():
    norm = nn.BatchNorm1d(6)
    model = nn.Sequential(nn.Linear(6, 6), norm, nn.Linear(6, 6), norm, nn.Linear(6, 3))
    net = network("a", "b", model=model)
    assert net.norms == ("1",)
    train(net, "a")
    assert net.statistics("a")["1"].batches == 10
    assert net.statistics("b")["1"].batches == 0
    assert net.norm_behind(rows()[0]) == {"0.weight": "1", "2.weight": "1", "4.weight": None}
    expected = net.probe("a", [rows(3)[0]])["1"]  # over both calls, with the former statistics
    net.reestimate("a", rows(3)[0].split(7))
    torch.testing.assert_close(net.statistics("a")["1"].mean, expected.mean)


def test_measuring_anew_is_whole_or_not_at_all():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    net = network("a", model=model)
    train(net, "a")
    with torch.no_grad():
        net.get_parameter("model.2.bias").fill_(float("inf"))
    before = everything_of(net, "a")
    with pytest.raises(MeasurementError, match="3 received nan or infinity"):
        net.reestimate("a", [rows()[0]])
    assert everything_of(net, "a") == before


def test_norms_that_tasks_would_share_unnoticed_are_refused():
    untracked = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(UsageError, match=r"1 keeps no running statistics.*expected track_running_stats=True"):
        SupermaskNetwork(untracked)
    instance = nn.Sequential(nn.Conv1d(2, 3, 1), nn.InstanceNorm1d(3, track_running_stats=True))
    with pytest.raises(UsageError, match="1 is an instance norm with running statistics"):
        SupermaskNetwork(instance)
    SupermaskNetwork(nn.Sequential(nn.Conv1d(2, 3, 1), nn.InstanceNorm1d(3), nn.LayerNorm(3)))


def test_a_batch_norm_that_is_not_called_is_named():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.idle = nn.Linear(6, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.fc(x)

    net = network("a", model=Idle())
    with pytest.raises(MeasurementError, match=r"does not call \['idle'\]"):
        net.reestimate("a", [rows()[0]])
    with pytest.raises(MeasurementError, match="idle received 0 values"):
        net.probe("a", [rows()[0]])
