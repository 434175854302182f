"""The preflight refuses what cannot be compared, says why, and lets through what can."""

import pytest
import torch

from commonweight import overlap
from commonweight.base.errors import NotComparableError, UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.overlaps import LeftOut
from commonweight.overlaps.compatible import common_parameters


def fisher(shapes, rule="empirical", loss="classification"):
    metadata = {key: value for key, value in {"fisher_type": rule, "loss": loss}.items() if value}
    return Footprint("fisher", {name: torch.ones(shape) for name, shape in shapes.items()}, 8, metadata)


BODY = {"embed.weight": (10, 4), "body.weight": (4, 4)}


def test_equal_footprints_pass():
    found = common_parameters({"a": fisher(BODY), "b": fisher(BODY)})
    assert found.parameters == ("embed.weight", "body.weight")
    assert found.left_out == ()


def test_the_order_is_that_of_the_first_and_another_order_does_no_harm():
    other = fisher(dict(reversed(BODY.items())))
    assert common_parameters({"a": fisher(BODY), "b": other}).parameters == ("embed.weight", "body.weight")


def test_other_vocabulary_and_heads_are_named():
    a = fisher({**BODY, "pooler.weight": (4,)})
    b = fisher({**BODY, "embed.weight": (12, 4), "head.bias": (2,)})
    with pytest.raises(NotComparableError) as caught:
        common_parameters({"a": a, "b": b})
    assert str(caught.value) == (
        "the footprints 'a' and 'b' do not hold the same parameters, 3 differences: "
        "embed.weight (shape differs: [10, 4] in 'a', [12, 4] in 'b'); pooler.weight (only in 'a'); "
        "head.bias (only in 'b'); expected equal names and shapes: measure models of one architecture, or pass "
        "common_only=True to compare the 1 parameter with equal name and shape"
    )
    assert caught.value.exit_code == 3


def test_only_the_first_differences_are_listed_and_all_counted():
    many = {**BODY, **{f"layer.{i}.weight": (2,) for i in range(9)}}
    with pytest.raises(
        NotComparableError, match=r"9 differences, the first 4: layer\.0\.weight .*layer\.3\.weight"
    ) as caught:
        common_parameters({"a": fisher(many), "b": fisher(BODY)})
    assert "layer.4" not in str(caught.value)


def test_common_only_compares_the_rest_and_lists_what_it_left_out():
    a, b = fisher({**BODY, "head.weight": (2, 4)}), fisher({**BODY, "head.weight": (3, 4)})
    table = overlap({"a": a, "b": b}, common_only=True)
    assert tuple(table.terms) == tuple(BODY)
    assert table.left_out == (LeftOut("head.weight", "shape differs: [2, 4] in 'a', [3, 4] in 'b'"),)
    assert overlap({"a": a, "b": a}).left_out == ()


def test_three_footprints_keep_what_all_three_hold():
    a, b, c = fisher({**BODY, "x": (1,)}), fisher({**BODY, "x": (1,)}), fisher(BODY)
    found = common_parameters({"a": a, "b": b, "c": c}, common_only=True)
    assert found.parameters == tuple(BODY)
    assert found.left_out == (LeftOut("x", "only in 'a' and 'b'"),)


@pytest.mark.parametrize("common_only", [False, True])
def test_nothing_in_common_is_refused_and_no_option_is_offered(common_only):
    with pytest.raises(NotComparableError) as caught:
        common_parameters({"a": fisher({"x": (1,)}), "b": fisher({"y": (1,)})}, common_only=common_only)
    assert str(caught.value) == (
        "the footprints 'a' and 'b' have no parameter of equal name and shape, 2 differences: x (only in 'a'); "
        "y (only in 'b'); no option compares them: measure the same parameters of models of one architecture"
    )


def test_kinds_never_mix():
    mask = Footprint("supermask", {name: torch.ones(shape) for name, shape in BODY.items()}, 8)
    with pytest.raises(
        NotComparableError, match="different kinds cannot be compared: fisher in 'a', supermask in 'm'; pass"
    ):
        common_parameters({"a": fisher(BODY), "m": mask}, common_only=True)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            fisher(BODY, rule="exact"),
            "Fisher type differs: empirical in 'a', exact in 'b'; measure them with one Fisher type$",
        ),
        (fisher(BODY, rule=None), "Fisher type differs: empirical in 'a', not stated in 'b'"),
        (
            fisher(BODY, loss="token"),
            "alike, loss differs: classification in 'a', token in 'b'; measure them with one loss$",
        ),
        (
            fisher(BODY, "exact", "token"),
            "Fisher type differs: .*; loss differs: classification in 'a', token in 'b'; "
            "measure them with one Fisher type and one loss$",
        ),
    ],
)
def test_fisher_types_and_losses_must_agree(other, message):
    with pytest.raises(NotComparableError, match=message):
        common_parameters({"a": fisher(BODY), "b": other})
    with pytest.raises(NotComparableError, match="not measured alike"):
        common_parameters({"a": fisher(BODY), "b": other}, common_only=True)


def test_counts_and_fold_maps_may_differ():
    other = Footprint("fisher", fisher(BODY).tensors, 99, {**fisher(BODY).metadata, "fold_map": "x", "seed": 7})
    assert common_parameters({"a": fisher(BODY), "b": other}).parameters == tuple(BODY)


def test_shapes_of_saved_footprints_are_compared_without_reading_them(tmp_path, monkeypatch):
    a = Footprint.load(fisher(BODY).save(tmp_path / "a"))
    b = Footprint.load(fisher({**BODY, "embed.weight": (12, 4)}).save(tmp_path / "b"))

    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(type(a.tensors), "__getitem__", refuse)
    with pytest.raises(NotComparableError, match=r"embed.weight \(shape differs: \[10, 4\] in 'a', \[12, 4\] in 'b'\)"):
        common_parameters({"a": a, "b": b})
    with pytest.raises(AssertionError, match="a tensor was read"):
        a["embed.weight"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([fisher(BODY)], "expected a mapping of names to footprints, such as {'a': f_a, 'b': f_b}, got list; name the"),
        ({}, "expected at least two footprints to compare, got 0; add another"),
        ({"a": fisher(BODY)}, "expected at least two footprints to compare, got 1"),
        (
            {"a": fisher(BODY), "": fisher(BODY)},
            "a footprint's name must be a non-empty string, got ''; name it by text",
        ),
        ({"a": fisher(BODY), 3: fisher(BODY)}, "a footprint's name must be a non-empty string, got 3"),
        ({"a": fisher(BODY), "b": "folder"}, r"'b' must be a Footprint, got str; .* Footprint.load\(folder\)"),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(UsageError, match=message):
        overlap(given)
