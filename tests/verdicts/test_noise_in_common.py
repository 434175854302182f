"""Copies of rows in other folds, and overlaps above 1: noise that two footprints have in common decides nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from commonweight import Estimate, Footprint, OverlapTable, fisher, overlap
from commonweight.footprints.copies import CopiesWarning, RowCounts
from commonweight.overlaps import LeftOut
from commonweight.verdicts.needs import NOT_COUNTED, at_most_1, table_needs
from commonweight.verdicts.tables import overlap_verdict, pairs_verdict

PAIRS = (("a", "b"), ("a", "far"))
DISTINCT, TIMES = 30, 12


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
    assert pairs_verdict(table, *PAIRS, same_rows=True).answer == "shares more"
    assert overlap_verdict(table, "a", "b", "0").answer == "above its null"
    found = pairs_verdict(copied, *PAIRS, same_rows=True)
    assert found.answer == overlap_verdict(copied, "a", "b", "0").answer == "inconclusive"
    assert found.lacking[0].name == "distinct rows"
    assert (
        "in 'a' 360 of 360 rows have copies in other folds (30 are distinct): give copies one source_row, or "
        "equal rows that are independent draws one each" in found.reason
    )
    assert "a: 360 of 360 rows have copies in other folds" in copied.to_markdown()
    assert "copies" not in table.to_markdown()


@pytest.mark.parametrize(("copies", "met"), [(0, True), (18, True), (19, False), (360, False)])
def test_one_footprint_with_copies_is_enough(table, copies, met):
    few = replace(table, rows=dict(table.rows) | {"far": RowCounts(360, 360 - copies // 2, copies)})
    need = table_needs([table, few], PAIRS)[2]
    assert (need.name, need.met) == ("distinct rows", met)
    assert table_needs([table, few], PAIRS[:1])[2].met


def test_one_source_row_for_all_copies_is_no_copy_but_counts_once(models, rows):
    x, y = (each[:DISTINCT].repeat(TIMES, *[1] * (each.dim() - 1)) for each in rows)
    found = measured(models, {"input": x, "labels": y, "source_row": torch.arange(DISTINCT).repeat(TIMES)})
    assert table_needs([found], PAIRS)[2].met
    assert found.rows["a"] == (360, DISTINCT, 0)
    for layer in (None, *found.layers):
        assert found.effective_sample_size_of("a", layer) <= DISTINCT
        unbounded = replace(found, rows={}, effective_sample_size={"a": found.spread["a"]["0"].effective_sample_size})
        assert unbounded.effective_sample_size_of("a", layer) > DISTINCT
    assert found.roll_up(0).effective_sample_size_of("a", "") <= DISTINCT
    some = replace(found, left_out=(LeftOut("head.weight", "only in 'a'"),))  # of several layers, a bound from theirs
    assert some.effective_sample_size_of("a") <= DISTINCT < replace(some, rows={}).effective_sample_size_of("a")
    assert found.pair("far", "a").rows == {"far": (360, DISTINCT, 0), "a": (360, DISTINCT, 0)}


def test_where_copies_were_not_counted_it_is_said(table, tmp_path):
    assert table.rows["far"] == (360, 360, 0)
    table.save(tmp_path)
    assert OverlapTable.load(tmp_path).rows == table.rows
    uncounted = replace(table, rows={})
    found = pairs_verdict(uncounted, *PAIRS, same_rows=True)
    assert found.answer == "inconclusive"
    assert found.reason.startswith(NOT_COUNTED)
    alone = overlap_verdict(uncounted, "a", "b", "0")
    assert alone.answer == "above its null"
    assert alone.reason.endswith(f"also: {NOT_COUNTED}")
    assert NOT_COUNTED not in overlap_verdict(table, "a", "b", "0").reason


def test_activities_have_no_rows_to_ask_for():
    vectors = {name: Footprint("activity", {"fc": torch.rand(6)}, 8) for name in "ab"}
    assert [need.name for need in table_needs([overlap(vectors)], [("a", "b")])] == [
        "two footprints",
        "same Fisher type",
    ]


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
    verdict = pairs_verdict(found, *PAIRS, same_rows=True)
    assert verdict.answer == "inconclusive"
    assert [need.name for need in verdict.lacking] == ["at most 1"]
    assert verdict.reason.startswith("the corrected overlap of 'a' and 'b' lies above 1, 1.")
    assert "at most 1" in [need.name for need in overlap_verdict(found, "a", "b").lacking]
    assert "at most 1" not in [need.name for need in overlap_verdict(found, "a", "far").lacking]


class Told:
    """A table that gives one corrected overlap."""

    resampled = object()

    def __init__(self, value, spread):
        self.found = Estimate(value, tuple(value + spread * (-1) ** k for k in range(8)), "folds")

    def estimate(self, *_):
        return self.found


def test_the_whole_interval_lies_above_1_by_more_than_rounding():
    one = [("a", "b")]
    for half, met in ((0.06, True), (0.04, False)):  # of a value of 1.05
        told = Told(1.05, 1.0)
        told = Told(1.05, half / told.found.half_width())
        assert at_most_1([told], one).met == met
    assert not at_most_1([Told(1 + 2e-4, 1e-6)], one).met
    assert at_most_1([Told(1 + 0.9e-4, 1e-6)], one).met
    assert at_most_1([Told(1.5, 1.0)], one).met


def test_several_overlaps_have_wider_intervals():
    told = Told(1.05, 1.0)
    told = Told(1.05, 0.045 / told.found.half_width())
    assert not at_most_1([told], [("a", "b")]).met
    assert at_most_1([told], PAIRS).met
    assert at_most_1([told] * 3, [("a", "b")]).met


def test_an_interval_that_holds_1_and_a_table_without_folds_are_at_most_1(table):
    assert at_most_1([table], PAIRS).met
    assert at_most_1([table], PAIRS, ("0",)).met
    assert at_most_1([replace(table, resampled=None)], PAIRS).met
