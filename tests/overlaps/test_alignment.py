"""A common start is recognised from the weights, and its absence is said."""

import math

import numpy as np
import pytest
import torch
from reference import measures as reference

from commonweight.errors import UsageError
from commonweight.footprint.footprint import Footprint
from commonweight.overlaps import Alignment, alignment_of


def sampled(weights, scale=None):
    metadata = {} if scale is None else {"weight_sample_scale": scale}
    sample = {name: torch.as_tensor(values) for name, values in weights.items()}
    return Footprint("fisher", {"w": torch.ones(1)}, 1, metadata, weight_sample=sample)


def normal(seed, size=5000):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_readings_of_real_situations():
    start = normal(0)
    found = alignment_of({
        "start": sampled({"w": start}),
        "tuned": sampled({"w": start + 0.1 * normal(1)}),
        "drifted": sampled({"w": start + normal(2)}),
        "stranger": sampled({"w": normal(3)}),
        "unknown": sampled({}),
    })
    assert found.reading("start", "tuned") == "common start"
    assert found.reading("start", "drifted") == "unclear"
    assert found.reading("start", "stranger") == "no common start"
    assert found.reading("start", "unknown") == "not measured"
    assert found.distance[0, 3] == pytest.approx(1, abs=0.05)
    assert np.diagonal(found.distance)[:4].tolist() == [0.0] * 4
    assert np.isnan(found.distance[4]).all()
    assert (found.distance[:4, :4] == found.distance[:4, :4].T).all()


@pytest.mark.parametrize(
    ("distance", "reading"),
    [
        (0.0, "common start"),
        (0.5, "common start"),
        (0.51, "unclear"),
        (0.79, "unclear"),
        (0.8, "no common start"),
        (1.41, "no common start"),
        (math.nan, "not measured"),
    ],
)
def test_where_the_readings_change(distance, reading):
    found = Alignment(("a", "b"), np.array([[0.0, distance], [distance, 0.0]]))
    assert found.reading("a", "b") == found.reading("b", "a") == reading


def test_the_formula_with_scales():
    a = {"u": [1.0, 2.0], "v": [3.0]}
    b = {"u": [1.5, -2.0], "v": [0.5]}
    scale = {"u": 10.0, "v": 2.0}
    value = alignment_of({"a": sampled(a, scale), "b": sampled(b, scale)}).distance[0, 1]
    expected = reference.relative_distance(list(a.values()), list(b.values()), [10.0, 2.0])
    assert value == pytest.approx(expected, abs=1e-12)
    assert alignment_of({"a": sampled(a), "b": sampled(b)}).distance[0, 1] == pytest.approx(
        reference.relative_distance(list(a.values()), list(b.values()), [1.0, 1.0]), abs=1e-12
    )
    assert value != pytest.approx(alignment_of({"a": sampled(a), "b": sampled(b)}).distance[0, 1], abs=1e-3)


def test_matrices_of_other_names_or_sizes_are_left_out():
    a = sampled({"u": [1.0, 0.0], "v": [1.0, 1.0], "x": [5.0]}, {"x": 2.0})
    b = sampled({"u": [1.0, 0.0], "v": [9.0], "y": [1.0], "x": [-5.0]}, {"x": 3.0})
    assert alignment_of({"a": a, "b": b}).distance[0, 1] == 0
    assert math.isnan(alignment_of({"a": sampled({"u": [1.0]}), "b": sampled({"v": [1.0]})}).distance[0, 1])


def test_zero_weights_say_nothing():
    assert math.isnan(alignment_of({"a": sampled({"u": [0.0]}), "b": sampled({"u": [0.0]})}).distance[0, 1])


def test_low_precision_samples():
    start = normal(0).to(torch.bfloat16)
    assert alignment_of({"a": sampled({"w": start}), "b": sampled({"w": start.float()})}).distance[0, 1] == 0


def three(ab, ac, bc):
    return Alignment(("a", "b", "c"), np.array([[0, ab, ac], [ab, 0, bc], [ac, bc, 0]]))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (three(0.1, 0.2, 0.25), "The models come from a common start (relative weight distance at most 0.25)."),
        (
            three(math.nan, math.nan, math.nan),
            "Whether the models come from a common start was not measured: the footprints hold no weight samples that "
            "can be compared, and without a common start overlaps are not to be read as sharing.",
        ),
        (
            three(0.1, 1.0, 0.99),
            "No common start for a and c (relative distance 1.00), b and c (relative distance 0.99), so their overlaps "
            "are not to be read as sharing.",
        ),
        (three(0.1, 0.2, 0.6), "A common start is unclear for b and c (relative distance 0.60)."),
        (
            three(1.0, 0.6, math.nan),
            "No common start for a and b (relative distance 1.00), so their overlaps are not to be read as sharing; "
            "a common start is unclear for a and c (relative distance 0.60); "
            "a common start was not measured for b and c.",
        ),
    ],
)
def test_one_sentence(found, sentence):
    assert found.sentence() == sentence


def test_sharing_is_withheld_only_without_a_common_start():
    assert "not to be read as sharing" in three(0.1, 1.0, 1.0).sentence()
    assert "not to be read as sharing" not in three(0.1, 0.1, 0.1).sentence()


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="no footprint 'z' in this comparison; it has a, b, c"):
        three(0, 0, 0).reading("a", "z")
