"""What a study may be asked, and what it refuses."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from commonweight.base import UsageError
from commonweight.base.choices import ScenarioName
from commonweight.data.images import SCENARIOS
from commonweight.studies.continual.approaches import PRIORS, SIMILARITIES, Approach, read_approach
from commonweight.studies.continual.plan import Plan
from commonweight.studies.continual.training import curve_steps
from commonweight.transfer.prior_rules import RULES


def test_the_words_to_choose_from_are_those_of_the_rooms() -> None:
    assert get_args(ScenarioName) == tuple(SCENARIOS)
    assert set(PRIORS) == set(RULES)


def test_a_word_and_its_approach_are_one() -> None:
    for word in ("classic", "classic-double", "transfer", "initialised", "transfer-random", "initialised-oracle"):
        assert read_approach(word).name == word
    for prior in PRIORS:
        for kind in ("transfer", "initialised"):
            found = read_approach(f"{kind}-{prior}-one_prior-beta0.25")
            assert (found.kind, found.prior, found.per_layer, found.beta) == (kind, prior, False, 0.25)
            assert read_approach(found.name) == found
    for similarity in SIMILARITIES:
        found = read_approach(f"transfer-{similarity}-softmax")
        assert found.similarity == similarity
        assert read_approach(found.name) == found


def test_a_start_may_be_that_of_the_priors_alone() -> None:
    assert read_approach("initialised-beta1").beta == 1


def test_the_order_of_the_parts_does_not_matter_and_the_usual_ones_may_be_said() -> None:
    assert read_approach("transfer-probed-softmax") == read_approach("transfer-softmax-probed")
    assert read_approach("transfer-every_layer-most_similar").name == "transfer"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("clasic", r"starts with one of classic, .*, initialised; did you mean 'classic'\?$"),
        ("novel", "starts with one of classic, classic-double, transfer, initialised$"),
        ("classic-random", "no approach"),
        ("transfer-radnom", "did you mean 'random'"),
        ("transfer-random-mean", "twice"),
        ("transfer-beta0.1-beta0.2", "twice"),
        ("transfer-beta1.5", "from 0 to below 1"),
        ("transfer-beta1", "nothing to train"),
        ("transfer-random-probed", "asks no similarity"),
    ],
)
def test_words_that_are_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_approach(word)


def test_what_needs_a_classic_run() -> None:
    needs = {
        name: read_approach(name).needs_classic
        for name in ("classic", "transfer", "transfer-first_layer", "transfer-probed", "transfer-random", "initialised")
    }
    assert needs == {
        "classic": False,
        "transfer": True,
        "transfer-first_layer": True,
        "transfer-probed": False,
        "transfer-random": False,
        "initialised": True,
    }
    runs = Plan("digits", approaches=("transfer-random", "transfer")).runs()
    assert [found.name for found in runs] == ["classic", "transfer-random", "transfer"]
    assert Plan("digits", approaches=("transfer-probed",)).runs() == (Approach("transfer", similarity="probed"),)


def test_the_strength_is_the_words_or_the_plans_or_the_usual() -> None:
    transfer, own, classic = (read_approach(word) for word in ("transfer", "transfer-beta0", "classic"))
    assert (transfer.strength(None), transfer.strength(0.1), own.strength(0.1)) == (0.25, 0.1, 0)
    assert (classic.strength(None), classic.strength(0.1)) == (0, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scenario": "roteted"}, "scenario must be one of permuted, rotated, partitioned, patch, got 'roteted'"),
        ({"approaches": ()}, "at least one approach"),
        ({"approaches": ("transfer", "transfer-every_layer")}, "each once"),
        ({"tasks": 0}, "tasks must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, above 0"),
        ({"beta": 1.5}, "beta must be at least 0 and below 1"),
        ({"density": 0.0}, "density must be above 0 and at most 1"),
        ({"hidden": (3, 0)}, "hidden must be at least 1, got 0"),
        ({"inference": ("entropy",)}, "inference must be one of"),
    ],
)
def test_plans_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan("digits", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scenario": "permuted", "max_angle": 90.0}, "max_angle is for the scenario rotated, got permuted"),
        ({"scenario": "permuted", "order": "given"}, "order is for the scenarios rotated, partitioned and patch"),
        ({"scenario": "rotated", "remap_labels": True}, "remap_labels is for the scenario partitioned, got rotated"),
        ({"approaches": ("classic",), "beta": 0.4}, "beta is for transfer and initialised .* got classic"),
        ({"approaches": ("transfer-beta0.1",), "beta": 0.4}, "without a beta of their own, got transfer-beta0.1"),
        ({"model": "mine:build", "hidden": (3,)}, "hidden is for the perceptron, and mine:build has layers of its own"),
        ({"model": "mine:build", "outputs": 100}, "outputs is for the perceptron"),
        ({"inference": (), "inference_rows": 7}, "inference_rows is for inferring the task"),
        ({"inference": (), "inference_batches": (3,)}, "inference_batches is for inferring the task"),
        ({"tasks": 1}, "tasks is 1, so transfer has no prior task"),
        ({"tasks": 1, "approaches": ("classic", "initialised-random")}, "so initialised-random has no prior task"),
    ],
)
def test_what_would_do_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan("digits", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"scenario": "rotated", "max_angle": 90.0, "order": "given"},
        {"scenario": "permuted", "max_angle": 180.0, "order": "shuffled"},
        {"scenario": "patch", "order": "given"},
        {"scenario": "partitioned", "remap_labels": True, "order": "given"},
        {"approaches": ("classic", "transfer-beta0.1", "initialised"), "beta": 0.4},
        {"hidden": (3,), "outputs": 100},
        {"model": "mine:build", "inference": ()},
        {"tasks": 1, "approaches": ("classic", "classic-double")},
    ],
)
def test_what_does_something_is_not(given: dict[str, Any]) -> None:
    Plan("digits", **given)


def test_what_decides_is_plain_json_and_leaves_out_what_may_grow() -> None:
    deciding = Plan("digits", seeds=2).deciding()
    assert json.loads(json.dumps(deciding)) == deciding
    assert deciding == Plan("digits", seeds=5, approaches=("classic",)).deciding()
    assert deciding != Plan("digits", beta=0.25).deciding()


def test_the_steps_of_a_curve() -> None:
    assert curve_steps(469, 12)[:4] == [0, 4, 16, 35]
    assert curve_steps(3, 12) == [0, 1, 2, 3]
    for total in (1, 2, 50, 10_000):
        steps = curve_steps(total, 12)
        assert (steps[0], steps[-1]) == (0, total)
        assert steps == sorted(set(steps))
