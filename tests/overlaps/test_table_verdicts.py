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
from commonweight.verdicts import NEEDS


def moved(model, by, seed):
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


def codes_unmet(verdict):
    return {finding.code for finding in verdict.findings if not finding.met}


def told(findings):
    return [(each.code, each.fault, dict(each.found)) for each in findings]


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
    found = table.verdict(("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "shares more"
    assert found.estimate == table.contrast(("a", "b"), ("a", "far"))
    assert table.verdict(("a", "far"), ("a", "b"), same_rows=True).answer == "shares less"
    assert table.verdict(("a", "b"), ("a", "far"), same_rows=False).answer == "inconclusive"
    layer = table.verdict(("a", "b"), ("a", "far"), layer="0", same_rows=True)
    assert layer.estimate == table.contrast(("a", "b"), ("a", "far"), "corrected", "0")
    elsewhere = {"shortcut learned", "two networks", "beyond the null too", "larger than controls"}
    assert [need.code for need in found.findings] == [need.code for need in NEEDS if need.code not in elsewhere]


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
    head = found.verdict(pair, other, layer="2", same_rows=True)
    assert head.answer == "inconclusive"
    assert head.lacking[0].code == "shared initialisation"
    in_the_head = ("shared initialisation", "of the layer", {"layers": ("2",), "share": 1.0})
    assert told(head.lacking) == [in_the_head]
    assert told(found.verdict(pair, layer="2").beware) == [in_the_head]
    both = found.verdict(pair, layers=("0", "2"))
    assert both.answer == "inconclusive"
    assert in_the_head in told(both.lacking)
    of_the_body = found.verdict(pair, other, layer="0", same_rows=True)
    assert not {"shared initialisation", "in every layer"} & codes_unmet(of_the_body)
    share = max(found.trace_share["2"][found.names.index(name)] for name in ("a", "b", "far"))
    whole = found.verdict(pair, other, same_rows=True)
    assert (share > 0.5) == (size < 1)
    of_layers = [each for each in whole.findings if not each.met and "layers" in each.found]
    assert [each.code for each in of_layers] == ["shared initialisation" if share > 0.5 else "in every layer"]
    assert of_layers[0] in (whole.lacking if share > 0.5 else whole.beware)
    assert of_layers[0].found == {"layers": ("2",), "share": pytest.approx(share)}
    assert whole.reason.count("no shared initialisation") == 1
    merged = found.roll_up(0)
    for of_all in (
        found.shared_initialisation(*pair),
        merged.shared_initialisation(*pair),
        merged.shared_initialisation(*pair, ""),
    ):
        assert of_all == ("no shared initialisation" if share > 0.5 else "shared initialisation")
    assert merged.verdict(pair, other, layer="", same_rows=True).reason == whole.reason
    found.save(tmp_path)
    again = OverlapTable.load(tmp_path)
    assert again.alignment.reading(*pair, ["2.weight"]) == "no shared initialisation"
    assert np.array_equal(
        again.alignment.of(("far", "a")).within(["0.weight"]), found.alignment.of(("far", "a")).within(["0.weight"])
    )


@pytest.mark.parametrize(("of", "answer"), [
    ("raw", "inconclusive"), ("null", "inconclusive"), ("corrected", "shares more"),
    ("above_null", "shares more"),
])  # fmt: skip
def test_the_noise_of_raw_overlaps_decides_nothing(table, of, answer):
    found = table.verdict(("a", "b"), ("a", "far"), same_rows=True, of=of)
    assert found.estimate == table.contrast(("a", "b"), ("a", "far"), of)
    assert found.answer == answer
    assert ("noise taken out" in [need.code for need in found.lacking]) == (answer == "inconclusive")


def test_a_low_noise_ceiling_is_named(table):
    pair, other = ("a", "b"), ("a", "far")
    assert table.noise_ceiling.pooled.min() > 0.8
    assert "high noise ceilings" not in codes_unmet(table.verdict(pair, other, same_rows=True))
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
        for sides in ((pair, other), (other, pair)):
            found = noisy.verdict(*sides, layer=layer, same_rows=True)
            (ceilings,) = (each for each in found.findings if each.code == "high noise ceilings")
            assert (ceilings in found.beware, ceilings.found) == (low, {"least": noise_ceilings.min()})
        of_one = codes_unmet(noisy.verdict(pair, layer=layer))
        assert ("high noise ceilings" in of_one) == (noise_ceilings[:2].min() < 0.8)
    assert noisy.noise_ceiling.by_layer["0"].min() < 0.8


def test_a_pair_does_not_share_more_than_itself(table):
    assert table.verdict(("a", "b"), ("b", "a"), same_rows=True).answer == "inconclusive"


def test_a_footprint_against_itself_is_no_pair(table):
    for first, second in ((("a", "a"), ("a", "b")), (("a", "b"), ("far", "far"))):
        with pytest.raises(UsageError, match="against itself"):
            table.verdict(first, second, same_rows=True)
    with pytest.raises(UsageError, match="'a' against itself"):
        table.verdict(("a", "a"))
    with pytest.raises(UsageError, match="no footprint 'c' in this table"):
        table.verdict(("a", "c"))
    for wrong in ("a", ("a",), ("a", "b", "far"), ("a", 1)):
        with pytest.raises(
            UsageError, match=r"expected pairs of two names each, such as .*; there are 'a', 'b', 'far'"
        ):
            table.verdict(wrong, ("a", "b"), same_rows=True)
    with pytest.raises(UsageError, match="same_rows must be True or False"):
        table.verdict(("a", "b"), ("a", "far"), same_rows=1)


def test_one_footprint_under_two_names_says_nothing(prints):
    table = overlap({"a": prints["a"], "x": prints["b"], "again": prints["a"], "y": prints["far"], "b": prints["b"]})
    more, less = (("a", "again"), ("a", "y")), (("a", "y"), ("a", "again"))
    for first, second in (more, less, (("x", "b"), ("x", "y"))):
        found = table.verdict(first, second, same_rows=True)
        assert found.answer == "inconclusive"
        assert found.lacking[0].code == "two footprints"
        assert found.lacking[0].found["pairs"] == (first if first in {("a", "again"), ("x", "b")} else second,)
    assert table.verdict(("a", "again"), layer="0").answer == "inconclusive"
    assert table.verdict(("a", "b"), ("again", "y"), same_rows=True).answer == "shares more"
    assert table.verdict(("a", "x"), layer="0").answer == "above its null"


def test_almost_the_same_numbers_are_two_footprints():
    """Sums over the same numbers may differ by rounding; other numbers by more, though in one parameter only."""
    torch.manual_seed(1)
    tensors = {"fc.weight": torch.rand(331, 301), "out.weight": torch.rand(3, 5)}
    near = tensors | {"out.weight": tensors["out.weight"] * (1 + 1e-4 * torch.rand(3, 5))}
    names = ("a", "b", "near", "c", "d", "e", "f")
    found = overlap({name: Footprint("fisher", near if name == "near" else tensors, 8) for name in names})
    for name in names[1:]:
        asked = found.verdict(("a", name), ("b", "near"), of="raw", same_rows=True)
        assert ("two footprints" in codes_unmet(asked)) == (name != "near")
    grams = {parameter: np.array(gram) for parameter, gram in found.terms.items()}
    for gram in grams.values():
        gram[0, 1] = gram[1, 0] = gram[0, 1] * (1 - 1e-14)
    again = replace(found, terms=grams).verdict(("a", "b"), ("a", "near"), of="raw", same_rows=True)
    assert "two footprints" in codes_unmet(again)


def test_parameters_left_out_are_said(prints):
    head = {"head.weight": torch.ones(2, 2)}
    wider = replace(prints["a"], tensors=dict(prints["a"].tensors) | head)
    table = overlap({**prints, "a": wider}, common_only=True)
    left_out = ("every parameter", "left out", {"count": 1})
    found = table.verdict(("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "shares more"
    assert told(found.beware) == [left_out]
    assert left_out in told(table.verdict(("a", "b")).beware)


def test_an_overlap_and_its_null(table):
    found = table.verdict(("a", "b"), layer="0")
    assert (found.answer, found.estimate) == ("above its null", table.estimate("above_null", "a", "b", "0"))
    random = {name: folded(squares, seed=seed) for seed, name in enumerate("ab")}
    enough = replace(overlap(random), effective_sample_size=dict.fromkeys("ab", 40.0))
    assert enough.verdict(("a", "b")).answer == "not above its null"


def with_distance(table, distance):
    n = len(table.names)
    return replace(table, alignment=Alignment(table.names, np.full((n, n), distance) * (1 - np.eye(n))))


@pytest.mark.parametrize(("distance", "fault"), [(0.9, "none"), (0.6, "unclear"), (np.nan, "unclear")])
def test_without_a_shared_initialisation_sharing_is_withheld(table, distance, fault):
    found = with_distance(table, distance).verdict(("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "inconclusive"
    assert told(found.lacking) == [("shared initialisation", fault, {})]
    alone = with_distance(table, distance).verdict(("a", "b"), layer="0")
    assert alone.answer == "above its null"
    assert told(alone.beware) == [("shared initialisation", fault, {})]
    assert with_distance(table, 0.4).verdict(("a", "b"), ("a", "far"), same_rows=True).answer == "shares more"


def test_few_effective_sample_size_of_one_footprint(table):
    few = replace(table, effective_sample_size=dict(table.effective_sample_size) | {"far": 12.0})
    assert few.verdict(("a", "b"), ("a", "far"), same_rows=True).answer == "inconclusive"
    assert few.verdict(("a", "far")).answer == "inconclusive"
    assert few.verdict(("a", "b"), layer="0").answer == "above its null"


def test_a_layer_has_effective_sample_size_of_its_own(table):
    few = dict(table.spread["far"]) | {"0": Spread(12.0, 12.0)}
    asked = replace(table, spread=dict(table.spread) | {"far": few})
    pairs = (("a", "b"), ("a", "far"))
    found = asked.verdict(*pairs, layer="0", same_rows=True)
    assert told(found.lacking) == [("effective sample size", "few", {"least": 12.0, "needed": 20})]
    assert asked.verdict(("a", "far"), layer="0").answer == "inconclusive"
    assert asked.verdict(("a", "b"), layer="0").answer == "above its null"
    for layer in ("2", None):
        assert "effective sample size" not in [
            need.code for need in asked.verdict(*pairs, layer=layer, same_rows=True).lacking
        ]
    unknown = replace(table, spread={}).verdict(*pairs, layer="0", same_rows=True)
    assert told(unknown.lacking) == [("effective sample size", "not measured", {})]
    # all weights together say nothing about a layer
    whole = replace(table, effective_sample_size=dict.fromkeys(table.names, 3.0))
    assert (
        whole.verdict(*pairs, layer="0", same_rows=True).answer
        == table.verdict(*pairs, layer="0", same_rows=True).answer
    )
    (few_of_all,) = whole.verdict(*pairs, same_rows=True).lacking
    assert (few_of_all.code, few_of_all.found["least"]) == ("effective sample size", 3.0)


def test_activities_have_no_effective_sample_size_to_ask_for():
    vectors = {name: Footprint("activity", {"fc": torch.rand(6)}, 8) for name in "abc"}
    found = overlap(vectors).verdict(("a", "b"), ("a", "c"), of="raw", same_rows=True)
    assert not {"effective sample size", "noise taken out"} & {need.code for need in found.findings}


@pytest.mark.parametrize("pair", [("a", "b"), ("a", "far")])
def test_one_pair_without_a_shared_initialisation_is_enough(table, pair):
    distance = np.array(table.alignment.distance)
    i, j = (table.names.index(name) for name in pair)
    for apart, fault in ((0.9, "none"), (0.6, "unclear")):
        distance[i, j] = distance[j, i] = apart
        one = replace(table, alignment=Alignment(table.names, distance))
        found = one.verdict(("a", "b"), ("a", "far"), same_rows=True)
        assert (found.answer, told(found.lacking)) == ("inconclusive", [("shared initialisation", fault, {})])


def test_without_folds():
    table = overlap({name: replace_folds(folded(squares, seed=seed)) for seed, name in enumerate("ab")})
    with pytest.raises(UsageError, match="without folds"):
        table.verdict(("a", "b"))


def replace_folds(footprint):
    return type(footprint)("fisher", footprint.tensors, footprint.count, {"fisher_type": "empirical"})
