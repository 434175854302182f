"""Tasks in one frozen network: what trains, what never moves, and what is refused."""

import copy

import pytest
import torch
from supermasks.supermask_nets import everything_of, mlp, network, outputs, rows, train
from torch import nn

from commonweight.base.errors import MeasurementError, UsageError
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import Threshold, TopK

RULES = [Threshold(), TopK(0.3), TopK(0.4, "magnitude")]
OPTIMISERS = [
    lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.5),
    lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_gradients_equal_the_definition(rule):
    net = network("a", rule=rule, model=mlp(norm=False))
    net.switch("a")
    inputs, labels = rows()
    nn.functional.cross_entropy(net(inputs), labels).backward()
    plain = mlp(norm=False)
    with torch.no_grad():
        for name, weight in zip(net.masked, (plain[0].weight, plain[2].weight, plain[4].weight), strict=True):
            mask = rule.mask(net.scores("a", name))
            weight.copy_(net.weight(name) * mask)
        for layer in (plain[0], plain[2], plain[4]):
            layer.bias.zero_()
    nn.functional.cross_entropy(plain(inputs), labels).backward()
    for parameter, name in zip(net.trainable("a"), net.masked, strict=True):
        weight = net.weight(name)
        torch.testing.assert_close(parameter.grad, plain[int(name[0])].weight.grad * weight, rtol=0, atol=1e-7)
        assert (parameter.grad[~net.mask("a", name)] != 0).any()  # what is off can come on


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_density_is_exact_at_every_step(rule):
    net = network("a", rule=rule)
    train(net, "a")
    for name in net.masked:
        mask = net.mask("a", name)
        if isinstance(rule, TopK):
            assert mask.sum() == round(rule.density * mask.numel())
        else:
            assert torch.equal(mask, net.scores("a", name) >= 0)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("batch_norm", ["statistics", "affine"])
def test_training_one_task_moves_no_other_and_no_weight(optimiser, batch_norm):
    net = network("a", "b", "c", batch_norm=batch_norm)
    weights = net.weights_digest()
    train(net, "a", optimiser=optimiser)
    net.finish("a")
    train(net, "b", optimiser=optimiser)  # stays unfinished
    before = {task: everything_of(net, task) for task in net.tasks}
    inputs, _ = rows(9)
    answers = {task: outputs(net, task, inputs) for task in net.tasks}
    train(net, "c", optimiser=optimiser)
    for task in ("a", "b"):
        assert everything_of(net, task) == before[task]
        assert torch.equal(outputs(net, task, inputs), answers[task])
    assert everything_of(net, "c") != before["c"]
    assert not torch.equal(outputs(net, "c", inputs), answers["c"])
    assert net.weights_digest() == weights


def test_an_optimiser_over_everything_moves_the_selected_task_alone():
    net = network("a", "b", batch_norm="affine")
    weights = net.weights_digest()
    inputs, labels = rows()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    net.switch("a")
    nn.functional.cross_entropy(net(inputs), labels).backward()
    optimiser.step()
    before = everything_of(net, "a")
    net.switch("b")
    started = everything_of(net, "b")
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimiser.step()
    assert everything_of(net, "a") == before
    assert everything_of(net, "b") != started
    assert net.weights_digest() == weights


def test_evaluating_and_probing_move_nothing():
    net = network("a", "b")
    train(net, "a")
    train(net, "b")
    net.finish("a")
    before = {task: everything_of(net, task) for task in net.tasks}
    inputs, _ = rows(5)
    net.train()
    with net.on("a"), pytest.warns(UserWarning, match="is finished, so nothing is trained"):
        net(inputs)  # finished: training mode does not move it either
    net.probe("a", [inputs])
    net.probe("b", [inputs])
    net.norm_behind(inputs)
    net.eval()
    for task in net.tasks:
        outputs(net, task, inputs)
    assert {task: everything_of(net, task) for task in net.tasks} == before
    net.train()
    with net.on("b"):
        net(inputs)
    assert everything_of(net, "b") != before["b"]  # an unfinished task in training mode does move


def test_a_look_at_another_task_does_not_disturb_a_step():
    one, two = network("a", "b"), network("a", "b")
    inputs, labels = rows()
    for net in (one, two):
        net.switch("a")
        optimiser = torch.optim.Adam(net.trainable("a"))
        nn.functional.cross_entropy(net(inputs), labels).backward()
        if net is two:
            with net.on("b"):
                assert net.task == "b"
                assert all(p.grad is None and not p.requires_grad for p in net.trainable("a"))
                net(inputs)
            net.eval()
            net.train()
        optimiser.step()
    assert everything_of(one, "a") == everything_of(two, "a")


def test_only_the_selected_unfinished_task_requires_a_gradient():
    net = network("a", "b", batch_norm="affine")
    assert not any(parameter.requires_grad for parameter in net.parameters())
    net.switch("a")
    needed = {id(parameter) for parameter in net.trainable("a")}
    assert {id(p) for p in net.parameters() if p.requires_grad} == needed
    assert len(needed) == 3 + 2 * 2
    net.finish("a")
    assert not any(parameter.requires_grad for parameter in net.parameters())
    net.switch("b")
    assert {id(p) for p in net.parameters() if p.requires_grad} == {id(p) for p in net.trainable("b")}


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("keep_scores", [True, False])
def test_finishing_keeps_outputs_to_the_last_bit(rule, keep_scores):
    net = train(network("a", rule=rule), "a")
    inputs, _ = rows(7)
    before, masks = outputs(net, "a", inputs), {name: net.mask("a", name) for name in net.masked}
    net.finish("a", keep_scores=keep_scores)
    assert net.is_finished("a")
    assert torch.equal(outputs(net, "a", inputs), before)
    for name, mask in masks.items():
        assert torch.equal(net.mask("a", name), mask)
        assert (net.scores("a", name) is None) is not keep_scores
        assert net.bits("a", name).unpack().equal(mask)


def test_a_finished_task_with_dropped_scores_takes_a_bit_per_weight():
    net = network("a", model=mlp(norm=False))
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))
    weights = sum(net.mask("a", name).numel() for name in net.masked)
    net.finish("a", keep_scores=False)
    now = sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))
    assert now == held - 4 * weights + sum(net.bits("a", name).nbytes for name in net.masked)
    assert sum(net.bits("a", name).nbytes for name in net.masked) <= weights / 8 + len(net.masked)


def test_tasks_can_be_added_later_and_draw_what_they_would_have_drawn():
    early, late = network("a", "b"), network("a")
    train(early, "a")
    train(late, "a")
    late.finish("a")
    late.add_task("b")
    assert late.tasks == ("a", "b")
    assert late.task == "a"
    assert everything_of(early, "b") == everything_of(late, "b")
    for name in late.masked:
        assert late.start_bits("a", name) == network("a").bits("a", name)
        assert late.start_bits("a", name) != late.bits("a", name)


def test_score_initialisation_are_independent_or_shared():
    independent, shared = network("a", "b"), network("a", "b", scores="shared")
    for name in shared.masked:
        assert shared.bits("a", name) == shared.bits("b", name)
        assert independent.bits("a", name) != independent.bits("b", name)
    train(shared, "a")
    assert shared.bits("a", "0.weight") != shared.bits("b", "0.weight")  # one start, not one tensor


def test_seeds_make_networks():
    assert network().weights_digest() == network().weights_digest()
    assert network().weights_digest() != network(seed=1).weights_digest()
    assert everything_of(network("a"), "a") != everything_of(network("a", seed=1), "a")
    other = network("a", seed=1, weights_seed=0)
    assert other.weights_digest() == network().weights_digest()
    assert all(torch.equal(other.mask("a", name), network("a", seed=1).mask("a", name)) for name in other.masked)


def test_the_model_and_the_random_state_are_left_alone():
    model = mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    net = network("a", model=model)
    net.start_bits("a", "0.weight")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    train(net, "a")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_signed_constants_are_drawn_and_pretrained_weights_kept():
    model = mlp()
    model(rows()[0])
    drawn, kept = network("a", model=model), network("a", model=model, weights="keep")
    weight = drawn.weight("0.weight")
    assert weight.abs().unique().tolist() == pytest.approx([(2 / 6) ** 0.5])
    assert not drawn.get_parameter("model.0.bias").any()
    assert not drawn.statistics("a")["1"].mean.any()
    assert torch.equal(kept.weight("0.weight"), model[0].weight)
    assert torch.equal(kept.get_parameter("model.0.bias"), model[0].bias)
    assert torch.equal(kept.statistics("a")["1"].mean, model[1].running_mean)


def test_a_deep_copy_is_another_network():
    net = train(network("a", "b"), "a")
    twin = copy.deepcopy(net)
    inputs, _ = rows(3)
    assert torch.equal(outputs(twin, "a", inputs), outputs(net, "a", inputs))
    before = everything_of(net, "b")
    twin.switch("b")
    assert net.task == "a"
    train(twin, "b")
    twin.finish("b")
    twin.add_task("c")
    assert everything_of(net, "b") == before != everything_of(twin, "b")
    assert not net.is_finished("b")
    assert net.tasks == ("a", "b")


def test_printing_says_rule_and_tasks():
    net = network("a", "b", rule=TopK(0.3))
    net.finish("a", keep_scores=False)
    net.switch("b")
    text = repr(net)
    assert "TopK(density=0.3, by='score'), seed=0, tasks=[a (finished), b], task=b" in text
    assert "per task: statistics" in text
    assert "tasks with scores: 1" in text


def test_a_network_without_a_task_is_not_called():
    net = network("a")
    inputs, _ = rows()
    for call in (net, net.model):
        with pytest.raises(UsageError, match=r"no task is selected: expected net\.switch"):
            call(inputs)
    with net.on("a"):
        net(inputs)
    with pytest.raises(UsageError, match="no task is selected"):
        net(inputs)
    net.switch("a")
    net.switch(None)
    assert net.task is None
    with pytest.raises(UsageError, match="no task is selected"):
        net(inputs)


def test_masks_of_another_task_are_not_cached():
    net = network("a")
    net.switch("a")
    with torch.nn.utils.parametrize.cached(), pytest.raises(UsageError, match=r"parametrize\.cached\(\) around"):
        net(rows()[0])
    net(rows()[0])


def test_tasks_that_cannot_be():
    net = network("a", "b")
    inputs, _ = rows()
    with pytest.raises(UsageError, match="there is a task 'a' already"):
        net.add_task("a")
    for name in ("", None, 3):
        with pytest.raises(UsageError, match="non-empty text"):
            net.add_task(name)
    calls = [
        net.switch, net.trainable, net.finish, net.is_finished, net.statistics,
        lambda task: net.on(task).__enter__(), lambda task: net.mask(task, "0.weight"),
        lambda task: net.reestimate(task, [inputs]), lambda task: net.probe(task, [inputs]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match=r"there is no task 'z': expected one of \['a', 'b'\]"):
            call("z")
    with pytest.raises(UsageError, match=r"'0.bias' is not a masked weight: expected one of \['0.weight'"):
        net.mask("a", "0.bias")
    assert net.tasks == ("a", "b")


def test_a_finished_task_is_not_trained():
    net = network("a")
    net.switch("a")
    net.finish("a")
    inputs, _ = rows()
    calls = [
        lambda: net.trainable("a"), lambda: net.finish("a"), lambda: net.reestimate("a", [inputs]),
        net.consolidate, lambda: net.influence({}, 0.5), lambda: net.start_from({}, 0.5),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match="finished task never changes"):
            call()
    net.train()
    with pytest.warns(UserWarning, match="is finished, so nothing is trained"):
        assert not net(inputs).requires_grad


def test_scores_that_diverged_are_not_finished():
    net = network("a")
    with torch.no_grad():
        net.trainable("a")[1][0, 0] = float("nan")
    with pytest.raises(MeasurementError, match=r"scores of 3\.weight hold nan or infinity"):
        net.finish("a")
    assert not net.is_finished("a")


def test_what_is_given_out_is_a_copy():
    net = network("a")
    net.finish("a")
    before, weights = everything_of(net, "a"), net.weights_digest()
    net.scores("a", "0.weight").zero_()
    net.bits("a", "0.weight").packed.zero_()
    net.mask("a", "0.weight").fill_(False)
    net.weight("0.weight").zero_()
    net.statistics("a")["1"].mean.fill_(9)
    assert everything_of(net, "a") == before
    assert net.weights_digest() == weights


def test_options_that_are_none():
    for option, value in [("weights", "random"), ("scores", "same"), ("batch_norm", "shared")]:
        with pytest.raises(UsageError, match=f"{option} must be one of"):
            SupermaskNetwork(mlp(), **{option: value})
    for seed in (-1, 0.5, True):
        with pytest.raises(UsageError, match="seed must be a whole number"):
            SupermaskNetwork(mlp(), seed=seed)
        with pytest.raises(UsageError, match="weights_seed must be a whole number"):
            SupermaskNetwork(mlp(), weights_seed=seed)
    with pytest.raises(UsageError, match="leave one out"):
        SupermaskNetwork(mlp(), weights="keep", weights_seed=1)
    with pytest.raises(UsageError, match="include must be a list"):
        SupermaskNetwork(mlp(), include="0.weight")
    with pytest.raises(UsageError, match=r"density 0\.001 keeps none of the 36 entries of"):
        SupermaskNetwork(mlp(), TopK(0.001), include=["6"])
