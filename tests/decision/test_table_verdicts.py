"""Verdicts of a table: the right numbers, the right rows, and models without a common start."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from overlaps.folded import fisher as folded
from overlaps.folded import squares

from commonweight import fisher, overlap
from commonweight.decision.table_verdicts import Cell, contrasts_of, overlap_verdict, pairs_verdict, same_rows
from commonweight.errors import UsageError
from commonweight.overlaps.alignment import Alignment


def moved(model, by, seed):
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.fixture(scope="module")
def table():
    """Two models next to each other, and one farther away, all from one start, on the same rows."""
    torch.manual_seed(0)
    start = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    rows = [(torch.randn(300, 8), torch.randint(3, (300,)))]
    models = {"a": moved(start, 0.02, 1), "b": moved(start, 0.02, 2), "far": moved(start, 0.15, 3)}
    return overlap({name: fisher(model, rows, folds=8) for name, model in models.items()})


def test_the_nearer_model_shares_more(table):
    found = pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "shares more"
    assert found.estimate == table.contrast(("a", "b"), ("a", "far"))
    assert pairs_verdict(table, ("a", "far"), ("a", "b"), same_rows=True).answer == "shares less"
    assert pairs_verdict(table, ("a", "b"), ("a", "far"), same_rows=False).answer == "cannot say"
    layer = pairs_verdict(table, ("a", "b"), ("a", "far"), "0", same_rows=True, of="raw")
    assert layer.estimate == table.contrast(("a", "b"), ("a", "far"), "raw", "0")


def test_a_pair_does_not_share_more_than_itself(table):
    assert pairs_verdict(table, ("a", "b"), ("b", "a"), same_rows=True).answer == "cannot say"


def test_an_overlap_and_its_null(table):
    found = overlap_verdict(table, "a", "b", "0")
    assert (found.answer, found.estimate) == ("above its null", table.estimate("above_null", "a", "b", "0"))
    random = {name: folded(squares, seed=seed) for seed, name in enumerate("ab")}
    enough = replace(overlap(random), effective_examples=dict.fromkeys("ab", 40.0))
    assert overlap_verdict(enough, "a", "b").answer == "not above its null"


def with_distance(table, distance):
    n = len(table.names)
    return replace(table, alignment=Alignment(table.names, np.full((n, n), distance) * (1 - np.eye(n))))


@pytest.mark.parametrize(("distance", "words"), [(0.9, "no common start"), (0.6, "unclear"), (np.nan, "not measured")])
def test_without_a_common_start_sharing_is_withheld(table, distance, words):
    found = pairs_verdict(with_distance(table, distance), ("a", "b"), ("a", "far"), same_rows=True)
    assert found.answer == "cannot say"
    assert words in found.reason
    alone = overlap_verdict(with_distance(table, distance), "a", "b", "0")
    assert alone.answer == "above its null"
    assert words in alone.reason
    assert pairs_verdict(with_distance(table, 0.4), ("a", "b"), ("a", "far"), same_rows=True).answer == "shares more"


def test_few_effective_examples_of_one_footprint(table):
    few = replace(table, effective_examples=dict(table.effective_examples) | {"far": 12.0})
    assert pairs_verdict(few, ("a", "b"), ("a", "far"), same_rows=True).answer == "cannot say"
    assert overlap_verdict(few, "a", "far").answer == "cannot say"
    assert overlap_verdict(few, "a", "b", "0").answer == "above its null"


def test_without_folds():
    table = overlap({name: replace_folds(folded(squares, seed=seed)) for seed, name in enumerate("ab")})
    with pytest.raises(UsageError, match="without folds"):
        overlap_verdict(table, "a", "b")


def replace_folds(footprint):
    return type(footprint)("fisher", footprint.tensors, footprint.count, {"label_rule": "data"})


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
    with pytest.raises(UsageError, match="no footprint 'c/x'"):
        same_rows(cells, ("a/x", "b/x"), ("a/x", "c/x"))
