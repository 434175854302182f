"""Masks and activities over trainings: hand-made numbers, chance, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from commonweight import Footprint, SupermaskNetwork, supermask_footprint
from commonweight.base import MeasurementError, NotComparableError, UsageError
from commonweight.overlaps import overlap_over_seeds
from commonweight.overlaps.over_seeds import name_of

WEIGHTS = 4000


def mask(bits: np.ndarray, start: str) -> Footprint:
    halves = torch.from_numpy(bits.astype(np.uint8)).split(WEIGHTS // 2)
    return Footprint(
        "supermask", {"one.w": halves[0], "two.w": halves[1]}, count=10, metadata={"score_initialisation": start}
    )


def likely(generator: np.random.Generator, chances: dict[str, np.ndarray], seeds: int) -> list[dict[str, Footprint]]:
    """Masks whose bits are on with given probabilities, independently in every training."""
    return [
        {
            name: mask(generator.random(WEIGHTS) < chance, f"independent, seed {seed}, task {place}")
            for place, (name, chance) in enumerate(chances.items())
        }
        for seed in range(seeds)
    ]


def chances(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Three tasks: b wants in part what a wants, c something else."""
    a, own, c = (generator.random(WEIGHTS) for _ in range(3))
    return {"a": a, "b": np.where(generator.random(WEIGHTS) < 0.6, a, own), "c": c}


def coefficient(x: np.ndarray, y: np.ndarray) -> float:
    jaccard = (x & y).sum() / (x | y).sum()
    expected = x.sum() * y.sum() / len(x)
    chance = expected / (x.sum() + y.sum() - expected)
    return float((jaccard - chance) / (1 - chance))


def test_every_number_against_its_definition():
    generator = np.random.default_rng(3)
    wanted = chances(generator)
    trainings = likely(generator, wanted, 4)
    found = overlap_over_seeds(trainings)
    bits = [
        {name: torch.cat([f["one.w"], f["two.w"]]).numpy().astype(bool) for name, f in each.items()}
        for each in trainings
    ]

    half = WEIGHTS // 2

    def between(x, y, kept):
        return np.mean([coefficient(bits[s][x][:half], bits[t][y][:half]) for s in kept for t in kept if s != t])

    whole = between("a", "b", range(4))
    lengths = math.sqrt(between("a", "a", range(4)) * between("b", "b", range(4)))
    assert found.estimate("between", "a", "b", "one").value == pytest.approx(whole, rel=1e-12)
    assert found.noise_ceiling("a", "one").value == pytest.approx(between("a", "a", range(4)), rel=1e-12)
    corrected = found.estimate("corrected", "a", "b", "one")
    assert corrected.value == pytest.approx(whole / lengths, rel=1e-12)
    without = []
    for out in range(4):
        kept = [s for s in range(4) if s != out]
        without.append(between("a", "b", kept) / math.sqrt(between("a", "a", kept) * between("b", "b", kept)))
    variance = 3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2)  # delete-one jackknife
    assert corrected.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    within = [coefficient(bits[s]["a"][:half], bits[s]["b"][:half]) for s in range(4)]
    assert found.estimate("within", "a", "b", "one").replicates == pytest.approx(within, rel=1e-12)
    assert found.estimate("corrected", "a", "a").value == pytest.approx(1)
    pooled = found.table.corrected.pooled
    pairs = [(s, t) for s in range(4) for t in range(4) if s != t]
    index = {(name, s): found.table.names.index(name_of(name, s)) for name in "abc" for s in range(4)}
    assert found.estimate("between", "a", "b").value == pytest.approx(
        np.mean([pooled[index["a", s], index["b", t]] for s, t in pairs]), rel=1e-12
    )


def test_what_two_tasks_share_and_what_they_do_not():
    found = overlap_over_seeds(likely(generator := np.random.default_rng(0), chances(generator), 5))
    shared, nothing = found.estimate("corrected", "a", "b"), found.estimate("corrected", "a", "c")
    assert 0.4 < shared.low < 0.57 < shared.high < 0.7
    assert nothing.low < 0 < nothing.high
    assert found.noise_ceiling("a").value == pytest.approx(0.25, abs=0.03)  # noise leaves a quarter of 1
    difference = found.contrast(("a", "b"), ("a", "c"))
    assert difference.value == shared.value - nothing.value
    assert difference.low > 0
    assert found.contrast(("a", "b"), ("a", "c"), "within", "one").low > 0


def test_a_noise_ceiling_that_is_chance_corrects_nothing():
    even = np.full(WEIGHTS, 0.5)
    generator = np.random.default_rng(1)
    found = overlap_over_seeds(likely(generator, {"a": generator.random(WEIGHTS), "coin": even}, 4))
    assert found.noise_ceiling("a").low > 0 > found.noise_ceiling("coin").low
    assert math.isnan(found.estimate("corrected", "a", "coin").value)
    assert math.isfinite(found.estimate("within", "a", "coin").value)
    text = found.to_markdown()
    assert "a dash where a noise ceiling is not above chance" in text
    row = next(line for line in text.splitlines() if line.startswith("| a and coin, pooled"))
    assert row.split("|")[-2].strip() == "–"
    assert found._repr_html_().count("<table") == 2


def test_a_noise_ceiling_whose_interval_holds_chance_corrects_nothing():
    generator = np.random.default_rng(3)
    weak = 0.5 + 0.22 * (generator.random(WEIGHTS) - 0.5)
    wanted = {"strong": generator.random(WEIGHTS), "weak": weak}
    unsure = sure = None
    for _ in range(60):
        found = overlap_over_seeds(likely(generator, wanted, 3))
        noise_ceiling = found.noise_ceiling("weak")
        if noise_ceiling.low > 0:
            sure = found
        elif noise_ceiling.value > 0.002:
            unsure = found
    assert unsure is not None
    assert sure is not None
    for pair in (("strong", "weak"), ("weak", "strong")):  # one of the two is enough
        assert math.isnan(unsure.estimate("corrected", *pair).value)
        assert math.isfinite(sure.estimate("corrected", *pair).value)
    assert math.isfinite(unsure.estimate("corrected", "strong", "strong").value)


def test_one_activity_twice_is_no_other_training():
    generator = np.random.default_rng(7)

    def training():
        return {name: Footprint("activity", {"bn": torch.from_numpy(generator.random(50))}, count=9) for name in "ab"}

    one, two, three = training(), training(), training()
    overlap_over_seeds([one, two, three])
    with pytest.raises(UsageError, match="trainings 0 and 2 of a are one and the same"):
        overlap_over_seeds([one, two, one])


def test_starts_from_one_draw_leave_chance_unknown():
    generator = np.random.default_rng(2)
    trainings = likely(generator, chances(generator), 3)
    for each in trainings:
        each["a"] = mask(generator.random(WEIGHTS) < 0.5, "independent, seed 0, task 0")
    found = overlap_over_seeds(trainings)
    assert math.isnan(found.noise_ceiling("a").value)
    assert math.isnan(found.estimate("corrected", "a", "b").value)
    assert math.isfinite(found.noise_ceiling("b").value)


def test_activities_have_no_chance_level():
    generator = np.random.default_rng(4)
    base = {"a": generator.random(50), "b": generator.random(50)}
    trainings = [
        {
            name: Footprint("activity", {"bn": torch.from_numpy(values + 0.1 * generator.standard_normal(50))}, count=9)
            for name, values in base.items()
        }
        for _ in range(4)
    ]
    found = overlap_over_seeds(trainings)
    vectors = [{name: footprint["bn"].numpy() for name, footprint in each.items()} for each in trainings]
    cosines = [
        x["a"] @ y["b"] / np.linalg.norm(x["a"]) / np.linalg.norm(y["b"])
        for x in vectors for y in vectors if x is not y
    ]  # fmt: skip
    assert found.estimate("between", "a", "b").value == pytest.approx(np.mean(cosines), rel=1e-12)
    assert found.estimate("corrected", "a", "b").value > found.estimate("between", "a", "b").value
    assert "beyond chance" not in found.to_markdown()
    truth = base["a"] @ base["b"] / np.linalg.norm(base["a"]) / np.linalg.norm(base["b"])
    assert found.estimate("corrected", "a", "b").value == pytest.approx(truth, abs=0.02)


def test_intervals_cover_what_they_should():
    generator = np.random.default_rng(5)
    wanted = chances(generator)
    p, q = wanted["a"], wanted["b"]

    def expected(x, y):
        common, by_chance = (x * y).sum(), x.sum() * y.sum() / WEIGHTS
        jaccard, chance = (each / (x.sum() + y.sum() - each) for each in (common, by_chance))
        return (jaccard - chance) / (1 - chance)

    truth = expected(p, q) / math.sqrt(expected(p, p) * expected(q, q))
    inside, repetitions = 0, 200
    for _ in range(repetitions):
        found = overlap_over_seeds(likely(generator, {"a": p, "b": q}, 5)).estimate("corrected", "a", "b")
        inside += found.low <= truth <= found.high
    assert 0.90 <= inside / repetitions <= 0.995


def test_what_is_refused():
    generator = np.random.default_rng(6)
    trainings = likely(generator, chances(generator), 3)
    with pytest.raises(UsageError, match="at least 3 trainings, got 2"):
        overlap_over_seeds(trainings[:2])
    with pytest.raises(UsageError, match="at least two footprints"):
        overlap_over_seeds([{"a": each["a"]} for each in trainings])
    with pytest.raises(UsageError, match="training 2 has the tasks a, b"):
        overlap_over_seeds([*trainings[:2], {name: trainings[2][name] for name in "ab"}])
    fishers = {name: Footprint("fisher", {"w": torch.ones(3)}, count=2) for name in "ab"}
    with pytest.raises(UsageError, match="got Fishers"):
        overlap_over_seeds([fishers] * 3)
    found = overlap_over_seeds(trainings)
    with pytest.raises(UsageError, match="no task 'd' here; there are 'a', 'b', 'c'"):
        found.noise_ceiling("d")
    with pytest.raises(UsageError, match="'within', 'between' or 'corrected', got 'raw'"):
        found.estimate("raw", "a", "b")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no layer 'on'"):
        found.noise_ceiling("a", "on")
    bad = Footprint("supermask", {"one.w": torch.full((3,), 2)}, count=1)
    with pytest.raises(MeasurementError, match="a, training 0"):
        overlap_over_seeds([{"a": bad, "b": bad}] * 3)


def test_other_frozen_weights_are_refused():
    def training(seed: int, weights_seed: int) -> dict[str, Footprint]:
        net = SupermaskNetwork(torch.nn.Linear(6, 4), seed=seed, weights_seed=weights_seed)
        net.add_task("a")
        net.add_task("b")
        return {task: supermask_footprint(net, task) for task in net.tasks}

    same = overlap_over_seeds([training(seed, 0) for seed in range(3)])
    assert repr(same) == "SeedOverlap(supermask of a, b; 3 trainings)"
    with pytest.raises(NotComparableError, match="a, training 0 and a, training 2 are of different frozen weights"):
        overlap_over_seeds([training(0, 0), training(1, 0), training(2, 1)])
