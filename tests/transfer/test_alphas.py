"""Alphas: which prior task takes part, and how much."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from footprints.masked import ROWS, inputs, trained
from reference.first_notebook import determine_alphas
from reference.masks import softmax

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.records import sealed
from commonweight.footprints.of_masks import activity_footprint
from commonweight.overlaps.similarity.means import TaskSimilarity, every_layer_similarity, first_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.transfer.alphas import Alphas, alphas_for, transfer_alphas
from commonweight.transfer.prior_rules import RULES

TASKS = ("a", "b", "c", "d")


def table(*rows, p=0.001, null=0.1, tasks=TASKS):
    """Similarities with the same last row in every layer but for what is given: one row per layer."""
    values = {}
    for layer, row in enumerate(rows):
        matrix = np.full((len(tasks), len(tasks)), 0.3)
        matrix[-1, : len(row)] = row
        np.fill_diagonal(matrix, 1.0)
        values[f"bn{layer}"] = matrix
    nan = {layer: np.where(np.isnan(matrix), np.nan, 1.0) for layer, matrix in values.items()}
    return TaskSimilarity(
        "every_layer",
        tasks,
        tuple(values),
        values,
        {layer: null * each for layer, each in nan.items()},
        {layer: np.asarray(p) * each for layer, each in nan.items()},
    )


def row(alphas, layer="bn0"):
    return list(alphas.layers[layer].values())


# Which tasks count


@pytest.mark.parametrize("rule", RULES)
def test_never_the_task_itself_nor_a_later_one(rule):
    found = table([0.2, 0.3, 0.4])
    truth = np.ones((4, 4)) if rule == "oracle" else None
    for index, task in enumerate(TASKS):
        alphas = transfer_alphas(found, task, rule, truth=truth)
        for layer in found.layers:
            assert tuple(alphas.layers[layer]) == TASKS[:index]
            assert sum(alphas.layers[layer].values()) == pytest.approx(1 if index else 0)
            assert all(alpha >= 0 for alpha in alphas.layers[layer].values())


def test_the_notebook_chooses_the_task_itself():
    found = table([0.2, 0.3, 0.4])
    assert determine_alphas(found.values, 3)["bn0"].tolist() == [0, 0, 0, 1]
    assert row(transfer_alphas(found, "d")) == [0, 0, 1]
    own_left_out = {layer: values[:, :3] for layer, values in found.values.items()}
    assert row(transfer_alphas(found, "d")) == determine_alphas(own_left_out, 3)["bn0"].tolist()


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_the_first_task_has_none(rule, per_layer):
    truth = np.ones((4, 4)) if rule == "oracle" else None
    alphas = transfer_alphas(table([0.2]), "a", rule, per_layer=per_layer, truth=truth)
    assert set(map(len, alphas.layers.values())) == {0}
    assert set(alphas.reasons.values()) == {"the first task: there is no prior one"}


def test_the_second_task_takes_its_only_prior_one_if_that_beats_its_null():
    found = table([0.9], tasks=("a", "b"))
    assert row(transfer_alphas(found, "b")) == [1]
    weak = transfer_alphas(table([0.9], tasks=("a", "b"), p=0.2), "b")
    assert row(weak) == [0]
    assert math.isnan(weak.margins["bn0"])


# Rules


def test_each_layer_by_itself():
    alphas = transfer_alphas(table([0.2, 0.9, 0.4], [0.8, 0.3, 0.1]), "d")
    assert alphas.layers == {"bn0": {"a": 0, "b": 1, "c": 0}, "bn1": {"a": 1, "b": 0, "c": 0}}
    assert alphas.reasons == {"bn0": "most similar: 'b'", "bn1": "most similar: 'a'"}
    assert alphas.margins == pytest.approx({"bn0": 0.5, "bn1": 0.5})


def test_one_choice_for_the_whole_network():
    found = table([0.2, 0.9, 0.4], [0.8, 0.3, 0.1])
    alphas = transfer_alphas(found, "d", per_layer=False)
    assert alphas.layers == {"": {"a": 0, "b": 1, "c": 0}}
    assert alphas.margins[""] == pytest.approx(0.1)
    assert row(transfer_alphas(table([0.2, 0.9, 0.4], null=0.95), "d", per_layer=False), "") == [0, 0, 0]
    undefined = table([0.2, 0.9, 0.4], [0.1, np.nan, 0.2])
    assert row(transfer_alphas(undefined, "d", per_layer=False), "") == [0, 0, 1]


def test_the_best_that_is_not_above_its_null_gets_nothing_and_the_reason_says_so():
    alphas = transfer_alphas(table([0.2, 0.9, 0.4], null=0.92, p=0.2), "d")
    assert row(alphas) == [0, 0, 0]
    assert alphas.reasons["bn0"] == ("the best prior task, 'b', is not above its null (similarity 0.9000, null 0.9200)")
    assert row(transfer_alphas(table([0.2, 0.9, 0.4], null=0.92, p=0.2), "d", "softmax")) == [0, 0, 0]


def test_only_the_best_is_held_against_its_null():
    p = np.full((4, 4), 0.2)
    p[3, 1] = 0.05
    assert row(transfer_alphas(table([0.2, 0.9, 0.4], p=p), "d")) == [0, 1, 0]
    p[3, 1] = 0.051
    assert row(transfer_alphas(table([0.2, 0.9, 0.4], p=p), "d")) == [0, 0, 0]


def test_controls_ask_no_null():
    weak = table([0.2, 0.9, 0.4], p=0.5)
    assert row(transfer_alphas(weak, "d", "least_similar")) == [1, 0, 0]
    assert row(transfer_alphas(weak, "d", "previous")) == [0, 0, 1]
    assert row(transfer_alphas(weak, "d", "mean")) == pytest.approx([1 / 3] * 3)
    assert sum(row(transfer_alphas(weak, "d", "random"))) == 1


def test_ties_go_to_the_earliest_and_the_reason_says_so():
    alphas = transfer_alphas(table([0.2, 0.4, 0.4]), "d")
    assert row(alphas) == [0, 1, 0]
    assert alphas.reasons["bn0"] == "most similar: 'b'; the earliest of 2 equals: 'b', 'c'"
    assert alphas.margins["bn0"] == 0
    assert row(transfer_alphas(table([0.2, 0.2, 0.4]), "d", "least_similar")) == [1, 0, 0]


@pytest.mark.parametrize("rule", ["most_similar", "least_similar", "softmax"])
def test_nan_never_wins(rule):
    alphas = transfer_alphas(table([np.nan, 0.4, 0.3]), "d", rule)
    assert row(alphas)[0] == 0
    assert sum(row(alphas)) == pytest.approx(1)
    nothing = transfer_alphas(table([np.nan] * 3), "d", rule)
    assert row(nothing) == [0, 0, 0]
    assert nothing.reasons["bn0"] == "no prior task has a defined similarity"
    assert math.isnan(nothing.margins["bn0"])


@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
def test_softmax(temperature):
    found = row(transfer_alphas(table([0.2, 0.9, 0.4]), "d", "softmax", temperature=temperature))
    assert found == pytest.approx(softmax([0.2, 0.9, 0.4], temperature))
    assert row(transfer_alphas(table([0.2, 0.9, 0.4]), "d", "softmax", temperature=1e-6)) == [0, 1, 0]


def test_random_depends_on_seed_task_and_layer_alone():
    found = table(*[[0.2, 0.9, 0.4]] * 12)
    draws = [transfer_alphas(found, "d", "random", seed=seed).layers for seed in range(12)]
    assert draws[0] == transfer_alphas(table(*[[0.1, 0.1, 0.1]] * 12), "d", "random", seed=0).layers
    assert len({str(each) for each in draws}) > 1
    assert len({tuple(each.values()) for each in draws[0].values()}) > 1  # layers differ
    counts = np.sum([list(each.values()) for layers in draws for each in layers.values()], axis=0)
    assert counts == pytest.approx([48, 48, 48], abs=20)
    one = transfer_alphas(found, "d", "random", per_layer=False)
    assert list(one.layers) == [""]


def test_the_oracle_takes_the_nearest_by_the_known_truth():
    angles = np.array([0, 90, 180, 95])
    truth = np.cos(np.deg2rad(angles[:, None] - angles))
    assert row(transfer_alphas(table([0.9, 0.1, 0.8]), "d", "oracle", truth=truth)) == [0, 1, 0]


def test_what_is_refused():
    found = table([0.2, 0.3, 0.4])
    for arguments, words in (
        (("z",), "no task 'z' in this table; it has 'a', 'b', 'c', 'd'"),
        (("d", "best"), "rule must be one of most_similar, softmax, .*, got 'best'"),
        (("d", "oracle"), "the rule is 'oracle' and truth is not given"),
    ):
        with pytest.raises(UsageError, match=words):
            transfer_alphas(found, *arguments)
    for options, words in (
        ({"temperature": 0}, "temperature must be a number over 0, got 0"),
        ({"temperature": math.nan}, "temperature must be a number over 0"),
        ({"truth": np.ones((4, 4))}, "the rule is 'most_similar' and truth is given"),
        ({"rule": "oracle", "truth": np.ones((3, 4))}, r"truth must have shape \[4, 4\]"),
    ):
        with pytest.raises(UsageError, match=words):
            transfer_alphas(found, "d", **options)


def test_files_and_text():
    for alphas in (
        transfer_alphas(table([0.2, 0.9, 0.4], [np.nan] * 3), "d", "softmax"),
        transfer_alphas(table([0.2]), "a"),
        transfer_alphas(table([0.2, 0.9, 0.4]), "d", per_layer=False),
    ):
        back = Alphas.from_json(alphas.to_json())
        assert back.to_json() == alphas.to_json()
        assert (back.task, back.rule, back.layers, back.reasons) == (
            alphas.task,
            alphas.rule,
            alphas.layers,
            alphas.reasons,
        )
        assert next(iter(alphas.reasons.values())) in alphas.to_markdown()
    for text, words in (
        ("no", "the text is not JSON"),
        (None, "the text is not JSON"),
        ("{}", "not a commonweight-alphas record"),
        ("[1]", "not a commonweight-alphas record"),
        ('{"format": "commonweight-alphas", "version": 1}', "this release reads version 2: .*choose them"),
        (
            json.dumps(sealed({"format": "commonweight-alphas", "version": 2})),
            "the alphas are damaged .*: choose them again",
        ),
    ):
        with pytest.raises(IntegrityError, match=words):
            Alphas.from_json(text)


# On a network


def of_network(net):
    return {task: activity_footprint(net, task) for task in net.tasks}


def test_a_masked_layer_takes_the_alphas_of_the_batch_norm_behind_it():
    net = trained()
    alphas = Alphas("c", "x", {"1": {"a": 1.0, "b": 0.0}, "4": {"a": 0.25, "b": 0.75}}, {}, {})
    assert alphas_for(net, alphas, inputs("c")) == {"0.weight": {"a": 1.0}, "3.weight": {"a": 0.25, "b": 0.75}}
    asked = alphas_for(net, alphas, inputs("c"), output="last")
    assert asked["6.weight"] == {"a": 0.25, "b": 0.75}


def test_the_first_layer_alone_gives_alphas_to_the_first_layer_alone_and_one_choice_to_all():
    net = trained()
    found = first_layer_similarity(of_network(net))
    assert set(alphas_for(net, transfer_alphas(found, "c", "previous"), ROWS)) == {"0.weight"}
    whole = transfer_alphas(found, "c", "previous", per_layer=False)
    assert alphas_for(net, whole, ROWS) == {"0.weight": {"b": 1.0}, "3.weight": {"b": 1.0}}
    assert len(alphas_for(net, whole, ROWS, output="last")) == 3


def test_no_alphas_where_all_are_zero_or_it_is_the_first_task():
    net = trained()
    found = every_layer_similarity(of_network(net))
    assert alphas_for(net, transfer_alphas(found, "a"), ROWS) == {}
    assert alphas_for(net, Alphas("b", "x", {"1": {"a": 0.0}}, {}, {}), ROWS) == {}


def test_a_batch_norm_that_is_not_there():
    with pytest.raises(UsageError, match="alphas of '2', which is no batch norm of this network; it has 1, 4"):
        alphas_for(trained(), Alphas("b", "x", {"2": {"a": 1.0}}, {}, {}), ROWS)
    with pytest.raises(UsageError, match="output must be 'none' or 'last'"):
        alphas_for(trained(), Alphas("b", "x", {}, {}, {}), ROWS, output="first")


def test_the_network_takes_them():
    net = copy.deepcopy(trained())
    net.add_task("d")
    net.switch("d")
    found = probed_similarity(net, {"d": [inputs("b")]})
    alphas = transfer_alphas(found, "d")
    assert {prior for each in alphas.layers.values() for prior, alpha in each.items() if alpha} == {"b"}
    before = {task: net.bits(task, "0.weight") for task in net.tasks}
    net.influence(alphas_for(net, alphas, inputs("b")), 0.5)
    agree = (net.mask("d", "0.weight") == net.mask("b", "0.weight")).float().mean()
    assert agree > (before["d"].unpack() == net.mask("b", "0.weight")).float().mean()
    net.consolidate()
    assert all(net.bits(task, "0.weight") == bits for task, bits in before.items() if task != "d")
    assert torch.equal(net.mask("a", "0.weight"), trained().mask("a", "0.weight"))


# Rounding, and arguments that are none


@pytest.mark.parametrize("rule", ["most_similar", "least_similar"])
def test_values_that_differ_by_rounding_are_equals(rule):
    rising = [0.8, math.nextafter(0.8, 1), 0.8] if rule == "most_similar" else [0.8, math.nextafter(0.8, 0), 0.9]
    found = transfer_alphas(table(rising), "d", rule)
    assert row(found) == [1, 0, 0]
    assert "the earliest of " in found.reasons["bn0"]
    apart = [0.8, 0.8 + 1e-6, 0.8] if rule == "most_similar" else [0.8, 0.8 - 1e-6, 0.9]
    assert row(transfer_alphas(table(apart), "d", rule)) == [0, 1, 0]


def test_a_truth_that_differs_by_rounding_ties():
    truth = np.eye(4)
    truth[3, :3] = [0.5, math.nextafter(0.5, 1), 0.2]
    found = transfer_alphas(table([0.1, 0.2, 0.3]), "d", "oracle", truth=truth)
    assert row(found) == [1, 0, 0]
    assert "the earliest of 2 equals: 'a', 'b'" in found.reasons["bn0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "a seed must be a whole number of at least 0, got -1"),
        ({"temperature": "hot"}, "temperature must be a number over 0, got 'hot'"),
        ({"temperature": None}, "temperature must be a number over 0, got None"),
    ],
)
def test_arguments_of_another_type_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        transfer_alphas(table([0.5, 0.6, 0.7]), "d", **options)
