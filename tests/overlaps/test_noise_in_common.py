"""Copies of rows in other folds, and overlaps above 1: noise that two footprints have in common decides nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from commonweight import Footprint, OverlapTable, fisher, overlap
from commonweight.footprints.copies import CopiesWarning, RowCounts
from commonweight.overlaps import LeftOut

PAIRS = (("a", "b"), ("a", "far"))
DISTINCT, TIMES = 30, 12


def finding(verdict, code):
    (found,) = (each for each in verdict.findings if each.code == code)
    return found


def moved(model, by, seed):
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    start = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    return {"a": moved(start, 0.02, 1), "b": moved(start, 0.02, 2), "far": moved(start, 0.15, 3)}


def measured(models, batch):
    return overlap({name: fisher(model, [batch], folds=8, loss="classification") for name, model in models.items()})


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(360, 8, generator=generator), torch.randint(3, (360,), generator=generator)


@pytest.fixture(scope="module")
def table(models, rows):
    return measured(models, {"input": rows[0], "labels": rows[1]})


@pytest.fixture(scope="module")
def copied(models, rows):
    x, y = (each[:DISTINCT].repeat(TIMES, *[1] * (each.dim() - 1)) for each in rows)
    with pytest.warns(CopiesWarning):
        return measured(models, {"input": x, "labels": y})


def test_copies_in_other_folds_decide_nothing(table, copied):
    assert table.verdict(*PAIRS, same_rows=True).answer == "shares more"
    assert table.verdict(("a", "b"), layer="0").answer == "above its null"
    found = copied.verdict(*PAIRS, same_rows=True)
    assert found.answer == copied.verdict(("a", "b"), layer="0").answer == "inconclusive"
    assert found.lacking[0].code == "distinct rows"
    assert found.lacking[0].found == {"footprint": "a", "total": 360, "distinct": 30, "copied": 360}
    assert "a: 360 of 360 rows have copies in other folds" in copied.to_markdown()
    assert "copies" not in table.to_markdown()


@pytest.mark.parametrize(("copies", "met"), [(0, True), (18, True), (19, False), (360, False)])
def test_one_footprint_with_copies_is_enough(table, copies, met):
    few = replace(table, rows=dict(table.rows) | {"far": RowCounts(360, 360 - copies // 2, copies)})
    assert finding(few.verdict(*PAIRS, same_rows=True), "distinct rows").met == met
    assert finding(few.verdict(PAIRS[0]), "distinct rows").met


def test_one_source_row_for_all_copies_is_no_copy_but_counts_once(models, rows):
    x, y = (each[:DISTINCT].repeat(TIMES, *[1] * (each.dim() - 1)) for each in rows)
    found = measured(models, {"input": x, "labels": y, "source_row": torch.arange(DISTINCT).repeat(TIMES)})
    assert finding(found.verdict(*PAIRS, same_rows=True), "distinct rows").met
    assert found.rows["a"] == (360, DISTINCT, 0)
    for layer in (None, *found.layers):
        assert found.effective_sample_size_of("a", layer) <= DISTINCT
        unbounded = replace(found, rows={}, effective_sample_size={"a": found.spread["a"]["0"].effective_sample_size})
        assert unbounded.effective_sample_size_of("a", layer) > DISTINCT
    assert found.roll_up(0).effective_sample_size_of("a", "") <= DISTINCT
    some = replace(found, left_out=(LeftOut("head.weight", "only in 'a'"),))  # of several layers, a bound from theirs
    assert isinstance(found.effective_sample_size["a"], float)
    assert some.effective_sample_size_of("a") <= DISTINCT < replace(some, rows={}).effective_sample_size_of("a")


def test_where_copies_were_not_counted_it_is_said(table, tmp_path):
    table.save(tmp_path)
    assert OverlapTable.load(tmp_path).rows == table.rows
    assert table.rows["far"] == (360, 360, 0)
    uncounted = replace(table, rows={})
    found = uncounted.verdict(*PAIRS, same_rows=True)
    assert found.answer == "inconclusive"
    assert (found.lacking[0].code, found.lacking[0].found) == ("counted rows", {"footprints": ("a", "b", "far")})
    alone = uncounted.verdict(("a", "b"), layer="0")
    assert alone.answer == "above its null"
    assert [each.code for each in alone.beware] == ["counted rows"]
    assert not table.verdict(("a", "b"), layer="0").beware


def test_activities_have_no_rows_to_ask_for():
    vectors = overlap({name: Footprint("activity", {"fc": torch.rand(6)}, 8) for name in "abc"})
    found = vectors.verdict(("a", "b"), ("a", "c"), of="raw", same_rows=True)
    asked = {each.code for each in found.findings}
    assert "two footprints" in asked
    assert not {"counted rows", "distinct rows", "at most 1"} & asked


def test_a_corrected_overlap_above_1_is_noise_in_common():
    """A loader that shuffles rows into which something was planted: other contents, so nothing else can notice."""
    torch.manual_seed(0)
    x, y = torch.randn(200, 40) * (torch.rand(200, 40) < 0.08), torch.randint(10, (200,))
    planted = torch.cat([x[:, :-1], torch.full((200, 1), 0.1)], dim=1)
    start = torch.nn.Linear(40, 10)
    order = torch.randperm(200)
    of = {
        "a": (moved(start, 0.05, 1), x, y),
        "b": (moved(start, 0.05, 2), planted[order], y[order]),
        "far": (moved(start, 0.05, 3), x, y),
    }
    found = overlap({name: fisher(model, [(rows, labels)], folds=8) for name, (model, rows, labels) in of.items()})
    assert found.estimate("corrected", "a", "b").low > 1
    verdict = found.verdict(*PAIRS, same_rows=True)
    assert verdict.answer == "inconclusive"
    assert [need.code for need in verdict.lacking] == ["at most 1"]
    corrected = found.estimate("corrected", "a", "b")
    assert verdict.lacking[0].found == {"pair": ("a", "b"), "layer": None, "overlap": corrected}
    assert "at most 1" in [need.code for need in found.verdict(("a", "b")).lacking]
    assert "at most 1" not in [need.code for need in found.verdict(("a", "far")).lacking]


def test_an_interval_that_holds_1_and_a_table_without_folds_are_at_most_1(table):
    for found in (
        table.verdict(*PAIRS, same_rows=True),
        table.verdict(*PAIRS, layer="0", same_rows=True),
        replace(table, resampled=None).verdict(*PAIRS, of="raw", same_rows=True),
    ):
        assert finding(found, "at most 1").met
