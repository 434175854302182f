"""A shared initialisation is recognised from the weights, and its absence is said."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import measures as reference

from commonweight import overlap
from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps import Alignment
from commonweight.overlaps.alignment import alignment_of


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
    assert found.reading("start", "tuned") == "shared initialisation"
    assert found.reading("start", "drifted") == "unclear"
    assert found.reading("start", "stranger") == "no shared initialisation"
    assert found.reading("start", "unknown") == "not measured"
    assert found.distance[0, 3] == pytest.approx(1, abs=0.05)
    assert np.diagonal(found.distance)[:4].tolist() == [0.0] * 4
    assert np.isnan(found.distance[4]).all()
    assert (found.distance[:4, :4] == found.distance[:4, :4].T).all()


@pytest.mark.parametrize(
    ("distance", "reading"),
    [
        (0.0, "shared initialisation"),
        (0.5, "shared initialisation"),
        (0.51, "unclear"),
        (0.79, "unclear"),
        (0.8, "no shared initialisation"),
        (1.41, "no shared initialisation"),
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
        (
            three(0.1, 0.2, 0.25),
            "The models come from a shared initialisation (relative weight distance at most 0.25).",
        ),
        (
            three(math.nan, math.nan, math.nan),
            "Whether the models come from a shared initialisation was not measured: the footprints hold no weight "
            "samples that "
            "can be compared, and without a shared initialisation overlaps are not to be read as sharing.",
        ),
        (
            three(0.1, 1.0, 0.99),
            "No shared initialisation for a and c (relative distance 1.00), b and c (relative distance 0.99), so "
            "their overlaps "
            "are not to be read as sharing.",
        ),
        (three(0.1, 0.2, 0.6), "A shared initialisation is unclear for b and c (relative distance 0.60)."),
        (
            three(1.0, 0.6, math.nan),
            "No shared initialisation for a and b (relative distance 1.00), so their overlaps are not to be read as "
            "sharing; "
            "a shared initialisation is unclear for a and c (relative distance 0.60); "
            "a shared initialisation was not measured for b and c.",
        ),
    ],
)
def test_one_sentence(found, sentence):
    assert found.sentence() == sentence


def measured_on(distances, data=("x", "y", "z")):
    """Footprints of models on several data: their distances are those of their models."""
    models = list("abcdef"[: len(distances)])
    names = tuple(f"{model}/{rows}" for model in models for rows in data)
    of = {name: name.partition("/")[0] for name in names}
    return Alignment(names, np.kron(np.array(distances), np.ones((len(data), len(data)))), models=of)


def test_distances_are_told_of_models_not_of_footprints():
    found = measured_on([[0, 0.9, 0.1], [0.9, 0, 0.6], [0.1, 0.6, 0]])
    assert found.sentence() == (
        "No shared initialisation for a and b (relative distance 0.90), so their overlaps are not to be read as "
        "sharing; "
        "a shared initialisation is unclear for b and c (relative distance 0.60)."
    )
    unknown = measured_on([[0, math.nan], [math.nan, 0.0]])
    assert unknown.sentence() == "A shared initialisation was not measured for a and b."


def test_names_that_look_like_models_are_told_as_they_are():
    found = Alignment(("run/a", "run/b"), np.array([[0.0, 0.9], [0.9, 0.0]]))
    assert found.sentence().startswith("No shared initialisation for run/a and run/b (relative distance 0.90), so")


def test_of_many_pairs_the_farthest_are_told():
    distances = 0.9 + 0.1 * np.arange(36).reshape(6, 6) / 36
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    text = measured_on(distances).sentence()
    assert text.count(" and ") == 6 + 1
    assert ", and 9 more pairs, so their overlaps are not" in text
    assert "e and f" in text
    assert "a and b" not in text


def test_far_from_a_known_start_is_not_another_start():
    text = measured_on([[0, 0.9, 0.6], [0.9, 0, 0.1], [0.6, 0.1, 0]]).sentence(start="a")
    assert text == (
        "Training moved models far from the shared initialisation a, or from each other: a and b (relative distance "
        "0.90), so "
        "their overlaps are not to be read as sharing; training moved models quite far from the shared "
        "initialisation a, or "
        "from each other: a and c (relative distance 0.60)."
    )
    assert three(0.1, 0.2, 0.25).sentence(start="a") == three(0.1, 0.2, 0.25).sentence()


def test_sharing_is_withheld_only_without_a_shared_initialisation():
    assert "not to be read as sharing" in three(0.1, 1.0, 1.0).sentence()
    assert "not to be read as sharing" not in three(0.1, 0.1, 0.1).sentence()


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="no footprint 'z' in this comparison; it has a, b, c"):
        three(0, 0, 0).reading("a", "z")


def test_weights_that_are_not_finite_are_not_measured():
    weights = {"l": torch.ones(4, 4), "m": torch.ones(4, 4)}
    a, b = (Footprint("fisher", {"l": torch.ones(4)}, 1, weight_sample=dict(weights)) for _ in range(2))
    assert alignment_of({"a": a, "b": b}).sentence() == "All footprints are of the same weights."
    sample = weights | {"l": torch.full((4, 4), math.nan)}
    broken = Footprint("fisher", {"l": torch.ones(4)}, 1, weight_sample=sample)
    found = alignment_of({"a": a, "broken": broken})
    assert found.reading("a", "broken") == "not measured"
    assert math.isnan(found.within(["l"])[0, 1])
    assert found.within(["m"])[0, 1] == 0
    assert found.reading("a", "broken", ["m"]) == "shared initialisation"
    part = Footprint("fisher", {"l": torch.ones(4)}, 1, weight_sample={"m": weights["m"]})
    assert alignment_of({"a": a, "part": part}).reading("a", "part") == "shared initialisation"  # of what both sampled


def test_a_single_string_is_no_collection_of_names():
    a = sampled({"4.weight": normal(0)})
    found = alignment_of({"a": a, "b": a})
    with pytest.raises(
        UsageError, match=r"such as \['0.weight'\], got the string '4'; .* table.shared_initialisation\('a', 'b', '4'\)"
    ):
        found.reading("a", "b", "4")


def starts(apart):
    """A layer of a large and a small matrix, one of a large matrix, and one without any; by how much each is apart."""
    sizes = {"mixed.large": 4000, "mixed.small": 40, "plain.weight": 4000}
    start = {name: normal(seed, size) for seed, (name, size) in enumerate(sizes.items())}
    other = {
        name: start[name] * math.cos(apart[name]) + normal(9, size) * math.sin(apart[name])
        for name, size in sizes.items()
    }
    traces = {name: torch.ones(2) for name in (*sizes, "norm.weight")}
    prints = [Footprint("fisher", traces, 1, weight_sample=weights) for weights in (start, other)]
    return overlap(dict(zip("ab", prints, strict=True)))


def test_a_layer_reads_as_its_farthest_matrix():
    near = dict.fromkeys(("mixed.large", "mixed.small", "plain.weight"), 0.1)
    assert {starts(near).shared_initialisation("a", "b", layer) for layer in (None, "mixed", "plain", "norm")} == {
        "shared initialisation"
    }
    found = starts(near | {"mixed.small": 1.5})
    assert found.alignment.within(["mixed.large", "mixed.small"])[0, 1] < 0.2
    assert [found.shared_initialisation("a", "b", layer) for layer in (None, "mixed", "plain", "norm")] == [
        "shared initialisation", "no shared initialisation", "shared initialisation", "shared initialisation",
    ]  # fmt: skip
    assert "but not so mixed (" in found.alignment.sentence()
    assert starts(near | {"mixed.large": 0.8}).shared_initialisation("b", "a", "mixed") == "unclear"


def test_layers_taken_together_have_no_start_where_most_of_the_trace_has_none():
    near = dict.fromkeys(("mixed.large", "mixed.small", "plain.weight"), 0.1)
    found = starts(near | {"mixed.small": 1.5})  # half of the trace is in the layer that holds it
    assert found.shared_initialisation("a", "b") == "shared initialisation"
    louder = replace(found, terms={**found.terms, "mixed.small": 2 * found.terms["mixed.small"]})
    assert louder.alignment.reading("a", "b") == "shared initialisation"
    for table, layer in ((louder, None), (louder.roll_up(0), None), (louder.roll_up(0), "")):
        assert table.shared_initialisation("a", "b", layer) == "no shared initialisation"
    assert louder.shared_initialisation("a", "b", "plain") == "shared initialisation"


def test_only_layers_and_footprints_of_the_table_have_a_start():
    found = starts(dict.fromkeys(("mixed.large", "mixed.small", "plain.weight"), 0.1))
    with pytest.raises(KeyError, match=r"no layer 'mixde' in this table; .*did you mean 'mixed'"):
        found.shared_initialisation("a", "b", "mixde")
    with pytest.raises(UsageError, match="no footprint 'c' in this"):
        found.shared_initialisation("a", "c")
