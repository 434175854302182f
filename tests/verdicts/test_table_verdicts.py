"""Verdicts of a table: the right numbers, the right rows, and models without a shared initialisation."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from overlaps.folded import fisher as folded
from overlaps.folded import squares

from commonweight import Footprint, OverlapTable, fisher, overlap
from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import Spread
from commonweight.overlaps.alignment import Alignment
from commonweight.verdicts.needs import NEEDS, table_needs
from commonweight.verdicts.tables import Cell, contrasts_of, layers_verdict, overlap_verdict, pairs_verdict, same_rows


def moved(model, by, seed):
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.fixture(scope="module")
def prints():
    """Two models next to each other, and one farther away, all from one start, on the same rows."""
    torch.manual_seed(0)
    start = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    rows = [(torch.randn(300, 8), torch.randint(3, (300,)))]
    models = {"a": moved(start, 0.02, 1), "b": moved(start, 0.02, 2), "far": moved(start, 0.15, 3)}
    return {name: fisher(model, rows, folds=8) for name, model in models.items()}


@pytest.fixture(scope="module")
def table(prints):
    return overlap(prints)


def test_the_nearer_model_shares_more(table):
    found = pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "shares more"
    assert found.estimate == table.contrast(("a", "b"), ("a", "far"))
    assert pairs_verdict(table, ("a", "far"), ("a", "b"), same_rows=True).answer == "shares less"
    assert pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=False).answer == "inconclusive"
    layer = pairs_verdict(table, ("a", "b"), ("a", "far"), "0", same_rows=True)
    assert layer.estimate == table.contrast(("a", "b"), ("a", "far"), "corrected", "0")
    assert [need.name for need in found.needs] == [
        requirement.name for requirement in NEEDS[1:] if "asked of two layers" not in requirement.demand
    ]


@pytest.mark.parametrize("size", [0.3, 1.5])
def test_a_layer_without_a_shared_initialisation_shares_nothing(size, tmp_path):
    """One body, and a freshly drawn head for every model: layers are asked, and the whole where they matter."""
    torch.manual_seed(1)
    start = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3))
    models = {"a": moved(start, 0.02, 1), "b": moved(start, 0.02, 2), "far": moved(start, 0.05, 3)}
    for seed, model in enumerate(models.values()):
        torch.manual_seed(seed)
        model[2].reset_parameters()
        model[2].weight.data *= size
    rows = [(torch.randn(400, 30), torch.randint(3, (400,)))]
    found = overlap({name: fisher(model, rows, folds=8) for name, model in models.items()})
    pair, other = ("a", "b"), ("a", "far")
    assert found.alignment.reading(*pair) == "shared initialisation"
    assert [found.shared_initialisation(*pair, layer) for layer in ("0", "2")] == [
        "shared initialisation",
        "no shared initialisation",
    ]
    assert "but not so 2 (" in found.alignment.sentence()
    assert [found.alignment.reading(*pair, [name]) for name in ("0.weight", "2.weight", "2.bias")] == [
        "shared initialisation", "no shared initialisation", "shared initialisation",
    ]  # fmt: skip
    head = pairs_verdict(found, pair, other, "2", same_rows=True)
    assert head.answer == "inconclusive"
    assert head.lacking[0].name == "shared initialisation"
    assert head.lacking[0].found == "no shared initialisation in layer '2'"
    assert "no shared initialisation in layer '2', so this is no sharing" in overlap_verdict(found, *pair, "2").reason
    both = layers_verdict(found, *pair, "0", "2")
    assert both.answer == "inconclusive"
    assert "no shared initialisation in layer '2'" in [need.found for need in both.lacking]
    assert "start" not in pairs_verdict(found, pair, other, "0", same_rows=True).reason
    share = max(found.trace_share["2"][found.names.index(name)] for name in ("a", "b", "far"))
    whole = pairs_verdict(found, pair, other, same_rows=True)
    words = f"no shared initialisation in layer '2', which holds up to {share:.0%} of a trace"
    assert words in whole.reason
    assert (share > 0.5) == (size < 1)
    assert [need.found for need in whole.lacking if need.name == "shared initialisation"] == (
        [words] if share > 0.5 else []
    )
    assert whole.reason.count("no shared initialisation") == 1
    merged = found.roll_up(0)
    for of_all in (
        found.shared_initialisation(*pair),
        merged.shared_initialisation(*pair),
        merged.shared_initialisation(*pair, ""),
    ):
        assert of_all == ("no shared initialisation" if share > 0.5 else "shared initialisation")
    assert pairs_verdict(merged, pair, other, "", same_rows=True).reason == whole.reason
    found.save(tmp_path)
    again = OverlapTable.load(tmp_path)
    assert again.alignment.reading(*pair, ["2.weight"]) == "no shared initialisation"
    assert np.array_equal(
        again.pair("far", "a").alignment.within(["0.weight"]), found.alignment.of(("far", "a")).within(["0.weight"])
    )


@pytest.mark.parametrize(("of", "answer"), [
    ("raw", "inconclusive"), ("null", "inconclusive"), ("corrected", "shares more"),
    ("above_null", "shares more"),
])  # fmt: skip
def test_the_noise_of_raw_overlaps_decides_nothing(table, of, answer):
    found = pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=True, of=of)
    assert found.estimate == table.contrast(("a", "b"), ("a", "far"), of)
    assert found.answer == answer
    assert ("noise taken out" in [need.name for need in found.lacking]) == (answer == "inconclusive")


def test_a_low_noise_ceiling_is_named(table):
    pair, other = ("a", "b"), ("a", "far")
    assert table.noise_ceiling.pooled.min() > 0.8
    assert "noise ceiling" not in pairs_verdict(table, pair, other, same_rows=True).reason
    generator = torch.Generator().manual_seed(0)
    rare = torch.rand(60, 80, generator=generator) < 0.05  # an input matters to few examples
    inputs = torch.where(rare, torch.randn(60, 80, generator=generator), 0.0)
    rows = [(inputs, torch.randint(3, (60,), generator=generator))]
    start = torch.nn.Sequential(torch.nn.Linear(80, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    models = {"a": moved(start, 0.02, 1), "b": moved(start, 0.02, 2), "far": moved(start, 0.1, 3)}
    noisy = overlap({name: fisher(model, rows, folds=8) for name, model in models.items()})
    for layer in (None, *noisy.layers):
        noise_ceilings = noisy.noise_ceiling.pooled if layer is None else noisy.noise_ceiling.by_layer[layer]
        low = noise_ceilings.min() < 0.8
        for reason in (
            pairs_verdict(noisy, pair, other, layer, same_rows=True).reason,
            pairs_verdict(noisy, other, pair, layer, same_rows=True).reason,
        ):
            assert (f"a noise ceiling of {noise_ceilings.min():.2f} leaves some noise in" in reason) == low
        assert ("noise ceiling" in overlap_verdict(noisy, *pair, layer).reason) == (noise_ceilings[:2].min() < 0.8)
    assert noisy.noise_ceiling.by_layer["0"].min() < 0.8


def test_a_pair_does_not_share_more_than_itself(table):
    assert pairs_verdict(table, ("a", "b"), ("b", "a"), same_rows=True).answer == "inconclusive"


def test_a_footprint_against_itself_is_no_pair(table):
    for first, second in ((("a", "a"), ("a", "b")), (("a", "b"), ("far", "far"))):
        with pytest.raises(UsageError, match="against itself"):
            pairs_verdict(table, first, second, same_rows=True)
    with pytest.raises(UsageError, match="'a' against itself"):
        overlap_verdict(table, "a", "a")
    with pytest.raises(UsageError, match="no footprint 'c' in this table"):
        overlap_verdict(table, "a", "c")
    for wrong in ("a", ("a",), ("a", "b", "far"), ("a", 1)):
        with pytest.raises(
            UsageError, match=r"expected pairs of two names each, such as .*; there are 'a', 'b', 'far'"
        ):
            pairs_verdict(table, wrong, ("a", "b"), same_rows=True)
    with pytest.raises(UsageError, match="same_rows must be True or False"):
        pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=1)


def test_one_footprint_under_two_names_says_nothing(prints):
    table = overlap({"a": prints["a"], "x": prints["b"], "again": prints["a"], "y": prints["far"], "b": prints["b"]})
    more, less = (("a", "again"), ("a", "y")), (("a", "y"), ("a", "again"))
    for first, second in (more, less, (("x", "b"), ("x", "y"))):
        found = pairs_verdict(table, first, second, same_rows=True)
        assert found.answer == "inconclusive"
        assert found.lacking[0].name == "two footprints"
        assert found.reason.startswith("the two footprints are one and the same")
    assert overlap_verdict(table, "a", "again", "0").answer == "inconclusive"
    assert pairs_verdict(table, ("a", "b"), ("again", "y"), same_rows=True).answer == "shares more"
    assert overlap_verdict(table, "a", "x", "0").answer == "above its null"


def test_almost_the_same_numbers_are_two_footprints():
    """Sums over the same numbers may differ by rounding; other numbers by more, though in one parameter only."""
    torch.manual_seed(1)
    tensors = {"fc.weight": torch.rand(331, 301), "out.weight": torch.rand(3, 5)}
    near = tensors | {"out.weight": tensors["out.weight"] * (1 + 1e-4 * torch.rand(3, 5))}
    names = ("a", "b", "near", "c", "d", "e", "f")
    found = overlap({name: Footprint("fisher", near if name == "near" else tensors, 8) for name in names})
    for name in names[1:]:
        two, *_ = table_needs([found], [("a", name)])
        assert two.met == (name == "near")
    grams = {parameter: np.array(gram) for parameter, gram in found.terms.items()}
    for gram in grams.values():
        gram[0, 1] = gram[1, 0] = gram[0, 1] * (1 - 1e-14)
    assert not table_needs([replace(found, terms=grams)], [("a", "b")])[0].met


def test_mixed_fisher_types_cannot_say(prints):
    table = overlap(prints)
    table = replace(table, fisher_types=dict(table.fisher_types) | {"far": "exact"})
    found = pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "inconclusive"
    assert [need.name for need in found.lacking] == ["same Fisher type"]
    assert found.reason.startswith("Fisher types differ (empirical, exact)")
    assert overlap_verdict(table, "a", "far").answer == "inconclusive"
    assert overlap_verdict(table, "a", "b", "0").answer == "above its null"
    both = overlap({**prints, "more": replace(prints["a"])})
    both = replace(both, fisher_types=dict(both.fisher_types) | {"more": "exact", "far": "exact"})
    assert pairs_verdict(both, ("a", "b"), ("more", "far"), same_rows=True).answer == "inconclusive"


def test_parameters_left_out_are_said(prints):
    head = {"head.weight": torch.ones(2, 2)}
    wider = replace(prints["a"], tensors=dict(prints["a"].tensors) | head)
    table = overlap({**prints, "a": wider}, common_only=True)
    words = "of the common parameters only, 1 left out"
    found = pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "shares more"
    assert found.reason.endswith(f"also: {words}")
    assert overlap_verdict(table, "a", "b").reason.endswith(f"also: {words}")


def test_an_overlap_and_its_null(table):
    found = overlap_verdict(table, "a", "b", "0")
    assert (found.answer, found.estimate) == ("above its null", table.estimate("above_null", "a", "b", "0"))
    random = {name: folded(squares, seed=seed) for seed, name in enumerate("ab")}
    enough = replace(overlap(random), effective_sample_size=dict.fromkeys("ab", 40.0))
    assert overlap_verdict(enough, "a", "b").answer == "not above its null"


def with_distance(table, distance):
    n = len(table.names)
    return replace(table, alignment=Alignment(table.names, np.full((n, n), distance) * (1 - np.eye(n))))


@pytest.mark.parametrize(
    ("distance", "words"), [(0.9, "no shared initialisation"), (0.6, "unclear"), (np.nan, "not measured")]
)
def test_without_a_shared_initialisation_sharing_is_withheld(table, distance, words):
    found = pairs_verdict(with_distance(table, distance), ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "inconclusive"
    assert words in found.reason
    alone = overlap_verdict(with_distance(table, distance), "a", "b", "0")
    assert alone.answer == "above its null"
    assert words in alone.reason
    assert pairs_verdict(with_distance(table, 0.4), ("a", "b"), ("a", "far"), same_rows=True).answer == "shares more"


def test_few_effective_sample_size_of_one_footprint(table):
    few = replace(table, effective_sample_size=dict(table.effective_sample_size) | {"far": 12.0})
    assert pairs_verdict(few, ("a", "b"), ("a", "far"), same_rows=True).answer == "inconclusive"
    assert overlap_verdict(few, "a", "far").answer == "inconclusive"
    assert overlap_verdict(few, "a", "b", "0").answer == "above its null"


def test_a_layer_has_effective_sample_size_of_its_own(table):
    few = dict(table.spread["far"]) | {"0": Spread(12.0, 12.0)}
    asked = replace(table, spread=dict(table.spread) | {"far": few})
    pairs = (("a", "b"), ("a", "far"))
    found = pairs_verdict(asked, *pairs, "0", same_rows=True)
    assert "12.0 effective sample size in the weakest Fisher, and it takes 20" in found.reason
    assert found.lacking[0].name == "effective sample size"
    assert overlap_verdict(asked, "a", "far", "0").answer == "inconclusive"
    assert overlap_verdict(asked, "a", "b", "0").answer == "above its null"
    for layer in ("2", None):
        assert "effective sample size" not in [
            need.name for need in pairs_verdict(asked, *pairs, layer, same_rows=True).lacking
        ]
    unknown = pairs_verdict(replace(table, spread={}), *pairs, "0", same_rows=True)
    assert "effective sample size were not measured" in unknown.reason
    # all weights together say nothing about a layer
    whole = replace(table, effective_sample_size=dict.fromkeys(table.names, 3.0))
    assert (
        pairs_verdict(whole, *pairs, "0", same_rows=True).answer
        == pairs_verdict(table, *pairs, "0", same_rows=True).answer
    )
    assert "3.0 effective" in pairs_verdict(whole, *pairs, same_rows=True).reason


def test_activities_have_no_effective_sample_size_to_ask_for():
    vectors = {name: Footprint("activity", {"fc": torch.rand(6)}, 8) for name in "abc"}
    found = pairs_verdict(overlap(vectors), ("a", "b"), ("a", "c"), of="raw", same_rows=True)
    assert not {"effective sample size", "noise taken out"} & {need.name for need in found.needs}


@pytest.mark.parametrize("pair", [("a", "b"), ("a", "far")])
def test_one_pair_without_a_shared_initialisation_is_enough(table, pair):
    distance = np.array(table.alignment.distance)
    i, j = (table.names.index(name) for name in pair)
    for apart, words in ((0.9, "no shared initialisation"), (0.6, "unclear")):
        distance[i, j] = distance[j, i] = apart
        one = replace(table, alignment=Alignment(table.names, distance))
        found = pairs_verdict(one, ("a", "b"), ("a", "far"), same_rows=True)
        assert (found.answer, found.lacking[0].name) == ("inconclusive", "shared initialisation")
        assert words in found.reason


def test_without_folds():
    table = overlap({name: replace_folds(folded(squares, seed=seed)) for seed, name in enumerate("ab")})
    with pytest.raises(UsageError, match="without folds"):
        overlap_verdict(table, "a", "b")


def replace_folds(footprint):
    return type(footprint)("fisher", footprint.tensors, footprint.count, {"fisher_type": "empirical"})


# Which contrasts there are


def grid(models, data, rows=None):
    return {f"{m}/{d}": Cell(m, d, (rows or {}).get(d, d)) for m in models for d in data}


def test_contrasts_differ_in_one_thing():
    found = contrasts_of(grid("ab", "xy"))
    assert set(found) == {(("a/x", "b/x"), ("a/y", "b/y")), (("a/x", "a/y"), ("b/x", "b/y"))}
    assert set(contrasts_of(grid("abc", "x"))) == {
        (("a/x", "b/x"), ("a/x", "c/x")), (("a/x", "b/x"), ("b/x", "c/x")), (("a/x", "c/x"), ("b/x", "c/x")),
    }  # fmt: skip
    assert set(contrasts_of(grid("a", "xyz"))) == {
        (("a/x", "a/y"), ("a/x", "a/z")), (("a/x", "a/y"), ("a/y", "a/z")), (("a/x", "a/z"), ("a/y", "a/z")),
    }  # fmt: skip
    assert contrasts_of(grid("ab", "x")) == contrasts_of({}) == ()
    for first, second in contrasts_of(grid("abcd", "xyz")):
        models, data = ({name.split("/")[k] for name in (*first, *second)} for k in (0, 1))
        assert min(len(models), len(data)) <= 2
        assert len(models) * len(data) <= 4


def test_the_same_rows_come_first_and_only_they_are_the_same():
    cells = grid("ab", "xy")
    (first, second), (others, further) = contrasts_of(cells)
    assert same_rows(cells, first, second)
    assert (first, second) == (("a/x", "a/y"), ("b/x", "b/y"))
    assert not same_rows(cells, others, further)
    planted = grid("ab", "xy", {"x": "source", "y": "source"})
    assert all(same_rows(planted, *contrast) for contrast in contrasts_of(planted))
    # some rows in common are not the same rows
    assert not same_rows(cells, ("a/x", "a/y"), ("b/x", "a/x"))
    assert not same_rows(cells, ("b/x", "a/x"), ("a/x", "a/y"))
    with pytest.raises(UsageError, match="no footprint 'c/x'"):
        same_rows(cells, ("a/x", "b/x"), ("a/x", "c/x"))
