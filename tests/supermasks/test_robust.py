"""What goes wrong at the edges of a supermask network: shared calls, late optimisers, odd weights, damaged records."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from damage import reseal
from supermasks.supermask_nets import everything_of, mlp, network, outputs, rows, train
from torch import nn
from torch.utils.checkpoint import checkpoint

from commonweight.base.errors import IntegrityError, MeasurementError, UsageError
from commonweight.supermasks.files import RECORD
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import TopK


class Twice(nn.Module):
    """Uses one layer without a gradient and again with one, as networks with a target branch do."""

    def __init__(self, *, target: bool) -> None:
        super().__init__()
        self.layer, self.head, self.target = nn.Linear(6, 6), nn.Linear(6, 3), target

    def forward(self, inputs):
        with torch.set_grad_enabled(not self.target):
            target = self.layer(inputs).detach()
        return self.head(self.layer(inputs) + 2 * target)


# Calls


def test_a_layer_that_is_used_without_a_gradient_first_still_gets_one():
    inputs, labels = rows()
    gradients = []
    for target in (True, False):
        torch.manual_seed(0)
        net = network("a", model=Twice(target=target))
        net.switch("a")
        nn.functional.cross_entropy(net(inputs), labels).backward()
        gradients.append([parameter.grad for parameter in net.trainable("a")])
    assert gradients[1][0].abs().sum() > 0
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_a_layer_that_is_used_twice_is_masked_once():
    calls = []

    class Counting(TopK):
        def mask(self, scores, *, out=None):
            calls.append(scores.shape)
            return super().mask(scores, out=out)

    net = network("a", model=Twice(target=False), rule=Counting(0.5))
    net.switch("a")
    net(rows()[0])
    assert len(calls) == 2  # one per weight, of three uses
    net(rows()[0])
    assert len(calls) == 4  # and nothing is kept from one call to the next


def test_networks_in_several_threads_do_not_meet():
    inputs, _ = rows()
    nets = [network("a", seed=seed) for seed in range(4)]
    expected = [outputs(net, "a", inputs) for net in nets]
    for net in nets:
        net.eval()
        net.switch("a")

    def answers(net):
        return [net(inputs).detach() for _ in range(30)]

    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(answers, nets), expected, strict=True):
            assert all(torch.equal(each, wanted) for each in found)


# Backward passes


def loss_of(net, seed=0):
    inputs, labels = rows(seed)
    return nn.functional.cross_entropy(net(inputs), labels)


def steps_inside(batch_norm="affine"):
    """Two tasks trained as they should be: every step where its task is selected."""
    net = network("a", "b", batch_norm=batch_norm)
    for task in ("a", "b"):
        optimiser = torch.optim.Adam(net.trainable(task), lr=0.05)
        with net.on(task):
            for step in range(3):
                optimiser.zero_grad()
                loss_of(net, step).backward()
                optimiser.step()
    return net


@pytest.mark.parametrize("former", [None, "b"])
def test_a_step_after_the_block_moves_the_task_as_one_inside_does(former):
    net = network("a", "b", batch_norm="affine")
    optimiser = torch.optim.Adam(net.trainable("a"), lr=0.05)
    net.switch(former)
    untouched = everything_of(net, "b")
    for step in range(3):
        with net.on("a"):
            optimiser.zero_grad()
            loss_of(net, step).backward()
        optimiser.step()
    assert everything_of(net, "a") == everything_of(steps_inside(), "a")
    assert everything_of(net, "b") == untouched


def test_a_block_within_the_same_task_keeps_its_gradients():
    net = network("a", "b", batch_norm="affine")
    optimiser = torch.optim.Adam(net.trainable("a"), lr=0.05)
    net.switch("a")
    for step in range(3):
        optimiser.zero_grad()
        with net.on("a"):
            loss_of(net, step).backward()
        optimiser.step()
    assert everything_of(net, "a") == everything_of(steps_inside(), "a")


def test_one_step_for_several_tasks_moves_all_of_them():
    net = network("a", "b", batch_norm="affine")
    optimiser = torch.optim.Adam([*net.trainable("a"), *net.trainable("b")], lr=0.05)
    for step in range(3):
        optimiser.zero_grad()
        for task in ("a", "b"):
            with net.on(task):
                loss_of(net, step).backward()
        optimiser.step()
    assert [everything_of(net, task) for task in "ab"] == [everything_of(steps_inside(), task) for task in "ab"]


def test_a_task_that_is_switched_to_moves_alone_whatever_blocks_left_behind():
    net = network("a", "b")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    with net.on("a"):
        loss_of(net).backward()
        optimiser.step()
    before = everything_of(net, "a")
    net.switch("b")
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        loss_of(net).backward()
        optimiser.step()
    assert everything_of(net, "a") == before


def leave(net):
    net.switch(None)


def go_on(net):
    net.switch("b")


def work_on(net):
    net.switch("b")
    loss_of(net).backward()


def look_from(net):
    net.switch("b")
    with net.on("a"):
        net(rows()[0])


@pytest.mark.parametrize("batch_norm", ["statistics", "affine"])
@pytest.mark.parametrize("meanwhile", [leave, go_on, work_on, look_from])
def test_a_backward_pass_after_its_task_is_refused(meanwhile, batch_norm):
    net = network("a", "b", batch_norm=batch_norm)
    with net.on("a"):
        loss = loss_of(net)
    meanwhile(net)
    now = "no task" if net.task is None else "task 'b'"
    before = [parameter.grad for parameter in net.trainable("b")]
    with pytest.raises(UsageError, match=rf"gradient came to task 'a' while {now} is selected.*`with net\.on\('a'\):`"):
        loss.backward()
    assert all(parameter.grad is None for parameter in net.trainable("a"))
    assert all(one is other for one, other in zip(before, [p.grad for p in net.trainable("b")], strict=True))


def test_a_backward_pass_for_two_tasks_at_once_is_refused():
    net = network("a", "b")
    losses = []
    for task in ("a", "b"):
        net.switch(task)
        losses.append(loss_of(net))
    with pytest.raises(UsageError, match="gradient came to task 'a' while task 'b' is selected"):
        sum(losses).backward()


@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # PyTorch's own, in compiling
@pytest.mark.parametrize("way", ["a part of the model", "a deep copy", "compiled"])
def test_a_late_backward_pass_is_refused_however_the_network_was_called(way):
    net = network("a", "b", model=mlp(norm=False))
    net = copy.deepcopy(net) if way == "a deep copy" else net
    net.switch("a")
    call = {"a part of the model": net.model[:3], "compiled": torch.compile(net, backend="eager", fullgraph=True)}
    loss = call.get(way, net)(rows()[0]).square().sum()
    net.switch("b")
    with pytest.raises(UsageError, match="gradient came to task 'a' while task 'b' is selected"):
        loss.backward()


class Checkpointed(nn.Module):
    """Runs its middle, or all behind its stem, again in the backward pass; plain where ``reentrant`` is None."""

    def __init__(self, *, reentrant, to_the_end=False):
        super().__init__()
        self.stem, self.middle, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.reentrant, self.to_the_end = reentrant, to_the_end

    def forward(self, inputs):
        layers = [self.middle, nn.Tanh(), self.head]
        hidden, cut = self.stem(inputs), 3 if self.to_the_end else 2
        inside, rest = nn.Sequential(*layers[:cut]), nn.Sequential(*layers[cut:])
        hidden = inside(hidden) if self.reentrant is None else checkpoint(inside, hidden, use_reentrant=self.reentrant)
        return {"logits": rest(hidden), "others": (inputs,)}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("to_the_end", [True, False])
def test_checkpointing_gives_gradients_to_the_task_of_the_forward_pass_or_is_refused(reentrant, to_the_end):
    inputs, labels = rows()
    plain = network("a", "b", model=Checkpointed(reentrant=None))
    net = network("a", "b", model=Checkpointed(reentrant=reentrant, to_the_end=to_the_end))

    def loss_on(task, net):
        net.switch(task)
        return nn.functional.cross_entropy(net(inputs)["logits"], labels)

    loss_on("a", plain).backward()
    loss = loss_on("a", net)
    with net.on("b"):
        net(inputs)
    loss.backward()
    for one, other in zip(net.trainable("a"), plain.trainable("a"), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
        assert one.grad.any()
    for meanwhile in (leave, lambda net: net.switch("b"), lambda net: loss_on("b", net)):
        loss = loss_on("a", net)
        meanwhile(net)
        with pytest.raises(UsageError, match=r"gradient came to task 'a' while|until its backward pass is over"):
            loss.backward()
        assert all(parameter.grad is None for parameter in net.trainable("b"))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_around_the_network(reentrant):
    inputs, _ = rows()
    net = network("a", "b", model=mlp(norm=False))
    for task in ("a", "b"):
        net.switch("a")
        loss = checkpoint(net, inputs.requires_grad_(), use_reentrant=reentrant).square().sum()
        net.switch(task)
        if reentrant or task == "b":
            message = "pass use_reentrant=False" if reentrant else "gradient came to task 'a' while task 'b'"
            with pytest.raises(UsageError, match=message):
                loss.backward()
        else:
            loss.backward()
            assert all(parameter.grad.any() for parameter in net.trainable("a"))
    assert all(parameter.grad is None for parameter in net.trainable("b"))


def test_checkpointing_in_a_superposition_that_is_over_is_refused():
    net = network("a", "b", model=Checkpointed(reentrant=True)).eval()
    for task in ("a", "b"):
        net.finish(task)
    for place in ("inside", "outside"):
        weights = {task: torch.tensor(0.5, requires_grad=True) for task in "ab"}
        with net.superposed(weights):
            loss = net(rows()[0])["logits"].square().sum()
            if place == "inside":
                loss.backward()
                assert all(weight.grad for weight in weights.values())
        net.switch("a")
        if place == "outside":
            with pytest.raises(UsageError, match=r"inside the same `with net\.superposed"):
                loss.backward()
            assert all(weight.grad is None for weight in weights.values())


# Finished tasks


@pytest.mark.parametrize("batch_norm", ["statistics", "affine"])
def test_no_optimiser_moves_what_a_finished_task_keeps(batch_norm):
    inputs, labels = rows()
    for way in ("inside another task", "before the backward pass"):
        net = network("a", "b", batch_norm=batch_norm)
        net.switch("a")
        optimiser = torch.optim.SGD(net.trainable("a"), lr=0.5, momentum=0.9, weight_decay=0.1)
        loss = nn.functional.cross_entropy(net(inputs), labels)
        if way == "inside another task":
            loss.backward()
            optimiser.step()
            with net.on("b"):
                net.finish("a")
        else:
            net.finish("a")
            with pytest.raises(UsageError, match="gradient came to task 'a' after it was finished"):
                loss.backward()
        kept, answer = net.scores("a", "0.weight"), outputs(net, "a", inputs)
        affine = [each.clone() for each in net.model[1].trained(0)]
        optimiser.step()
        assert torch.equal(net.scores("a", "0.weight"), kept)
        assert all(torch.equal(one, other) for one, other in zip(net.model[1].trained(0), affine, strict=True))
        assert torch.equal(outputs(net, "a", inputs), answer)


# Mixtures


def test_a_mixture_with_a_negative_variance_is_refused_and_rounding_is_not():
    net = network("a", "b").eval()
    for task in ("a", "b"):
        net.reestimate(task, [torch.ones(4, 6) * 100 + torch.randn(4, 6) * 1e-3])
    inputs, _ = rows()
    with (
        net.superposed({task: torch.tensor(1.0) for task in "ab"}),
        pytest.raises(MeasurementError, match="weights of sum 2: expected"),
    ):
        net(inputs)
    third = torch.tensor(1.0) / 3
    uneven = {"a": third, "b": 2 * third * (1 + 2**-23)}
    assert sum(uneven.values()) != 1
    with net.superposed(uneven):
        assert net(inputs).isfinite().all()
    with (
        pytest.raises(UsageError, match="the weight of 'a' must be finite, got nan"),
        net.superposed({"a": third * torch.nan}),
    ):
        pass


# Files


@pytest.mark.parametrize("minus", [False, True])
def test_weights_of_zero_come_back(tmp_path, minus):
    model = mlp()
    nn.init.zeros_(model[6].weight)
    if minus:
        model[6].weight.data[0] = -0.0
    net = network("a", model=model, weights="keep")
    net.save(tmp_path / "net")
    again = SupermaskNetwork.load(tmp_path / "net", mlp())
    assert again.weights_digest() == net.weights_digest()
    assert torch.equal(again.weight("6.weight").signbit(), model[6].weight.signbit())


def _with(key, value):
    return lambda record: record["options"].update({key: value})


def _task(**changes):
    return lambda record: record["tasks"][1].update(changes)


def _influence(**changes):
    return _task(influences={"0.weight": {"alphas": [[0, 1.0]], "beta": 0.5, **changes}})


@pytest.mark.parametrize(
    "change",
    [
        _with("seed", "0"),
        _with("include", 5),
        _with("exclude", [1]),
        _task(name="a"),
        _task(name=5),
        _task(finished="yes"),
        _task(moved_towards=[1]),
        _task(influences={"nowhere": {"alphas": [[0, 1.0]], "beta": 0.5}}),
        _influence(alphas=[[7, 1.0]]),
        _influence(alphas=[[0, -1.0]]),
        _influence(alphas=[]),
        _influence(beta=30),
        lambda record: record.update(scales=None),
        lambda record: record["scales"].update({"0.weight": [1]}),
        lambda record: record["scales"]["0.weight"].__setitem__(2, "float99"),
        lambda record: record["scales"]["0.weight"].__setitem__(0, [99, 99]),
        lambda record: record.update(frozen_before=5),
    ],
)
def test_a_damaged_record_is_an_integrity_error(tmp_path, change):
    net = network("a", "b")
    net.finish("a")
    net.save(tmp_path / "net")
    SupermaskNetwork.load(tmp_path / "net", mlp())

    def changed(record):
        change(record)
        return record

    reseal(tmp_path / "net" / RECORD, changed)
    with pytest.raises(IntegrityError):
        SupermaskNetwork.load(tmp_path / "net", mlp())


# Where scores come from


def test_prior_tasks_that_went_into_a_task_are_remembered(tmp_path):
    net = network("a", "b", "c", "d")
    net.finish("a")
    assert net.priors("a") == ()
    net.switch("b")
    net.influence({"0.weight": {"a": 1.0}}, 0.0)
    net.influence({"0.weight": {"a": 0.0}}, 0.5)
    assert net.priors("b") == ()  # nothing took part
    net.start_from({"0.weight": {"a": 1.0}}, 0.5)
    net.finish("b")
    net.switch("c")
    net.influence({"3.weight": {"b": 1.0}}, 0.5)
    train(net, "c")
    net.finish("c")
    assert net.priors("b") == ("a",)
    assert net.priors("c") == ("a", "b")
    assert net.priors("d") == ()
    net.save(tmp_path / "net")
    again = network()
    again.load_state_dict(net.state_dict())
    for other in (SupermaskNetwork.load(tmp_path / "net", mlp()), again, copy.deepcopy(net)):
        assert [other.priors(task) for task in "abcd"] == [net.priors(task) for task in "abcd"]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((mlp(), "topk"), r"rule must be a Threshold\(\) or a TopK\(density\), or None, got 'topk'"),
        ((mlp(), TopK), "rule must be a Threshold"),
        (("resnet18",), "model must be a torch.nn.Module, got str"),
    ],
)
def test_what_is_no_model_and_no_rule_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        SupermaskNetwork(*arguments)


def test_seeds_of_numpy_are_seeds():
    net = SupermaskNetwork(mlp(), seed=np.int64(3))
    assert net.state()["options"]["seed"] == 3
    json.dumps(net.state())


@pytest.mark.parametrize(("alpha", "beta"), [("1", 0.5), (1.0, "0.5"), (None, 0.5)])
def test_texts_are_no_alphas(alpha, beta):
    net = network("a", "b")
    net.finish("a")
    net.switch("b")
    with pytest.raises(UsageError, match="must be"):
        net.influence({"0.weight": {"a": alpha}}, beta)
