"""Sentences that are true: about few examples, the same weights, several footprints, and what a footprint is of."""

import numpy as np
import torch

from commonweight import Footprint, overlap
from commonweight.base.text import Grid, to_latex, to_markdown
from commonweight.footprints.footprint import Spread
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.table.layout import RAW
from commonweight.report.answer import Answer
from commonweight.report.footprint import sources, summary
from commonweight.report.terminal import split_columns, to_plain


def footprint(count=200, effective=100.0, **metadata):
    facts = {"fisher_type": "empirical", "loss": "classification"} | metadata
    spread = {"": Spread(effective, effective)}
    return Footprint("fisher", {"a.weight": torch.rand(3, 2), "b.bias": torch.rand(2)}, count, facts, spread)


def said(found):
    return " ".join(to_plain(summary(found, "out")).split())


def test_few_examples_and_few_effective_ones_are_two_things():
    assert "Only 8 examples, 7.5 effective, so an overlap with this footprint says little." in said(footprint(8, 7.5))
    uneven = "The trace is as unevenly spread as if 3.0 of the 500 examples carried all of it, so an overlap"
    assert uneven in said(footprint(500, 3.0))
    assert "says little" not in said(footprint(500, 100.0))


def test_a_summary_says_what_was_measured():
    facts = {
        "model": {"name": "org/m", "dtype": "bfloat16", "measured_parameters": 2, "trainable_parameters": 57},
        "data": {"path": "dev.tsv", "rows_in_all": 900, "split": None},
    }
    text = said(footprint(**facts))
    for part in (
        "model org/m",
        "data dev.tsv",
        "precision bfloat16",
        "examples 200 of 900",
        "2 of 57 parameters in 2 layers",
    ):
        assert part in text
    assert "2 parameters in 2 layers" in said(footprint())


def test_where_footprints_come_from():
    one, two = footprint(model={"name": "org/m"}, data={"id": "org/d", "config": "c", "split": "test"}), footprint()
    (grid,) = sources({"one": one, "two": two})
    assert grid.rows == (("one", "org/m", "org/d, c, test"), ("two", "–", "–"))
    assert sources({"two": two}) == []


def test_names_are_cut_on_a_screen_alone():
    names = ("bert.encoder.layer.11.attention.output.dense", "a" * 60, "runs/a.long/path.to/the/one.that.is/meant")
    answer = Answer("Which?", "These.", Grid("Layers", ("layer", "x"), tuple((name, "y" * 40) for name in names)))
    assert [row[0] for row in answer.on_screen().table.rows] == [
        "….layer.11.attention.output.dense",
        f"{'a' * 37}…",
        names[2],
    ]
    for text in (to_latex([answer.table]), to_markdown(answer.blocks())):
        assert all(name in text for name in names)


def test_the_same_weights_and_nearly_the_same():
    def sentence(distance):
        return Alignment(("a", "b"), np.array([[0.0, distance], [distance, 0.0]])).sentence()

    assert sentence(0.0) == "All footprints are of the same weights."
    assert sentence(0.004) == "The models come from a shared initialisation (relative weight distance below 0.01)."
    assert sentence(0.005) == "The models come from a shared initialisation (relative weight distance at most 0.01)."


def test_a_table_warns_of_few_examples_and_of_raw_overlaps():
    text = overlap({"a": footprint(), "b": footprint(effective=19.0)}).to_markdown()
    assert "Effective sample size below 20: b. Such Fishers decide nothing." in text
    assert RAW in text
    assert "Below 20" not in overlap({"a": footprint(), "b": footprint()}).to_markdown()


def test_a_wide_grid_is_split_and_loses_nothing():
    header = ("layer", *(f"pair-{i}" for i in range(7)))
    grid = Grid("Wide", header, (("head", *"0123456"),), (("pooled", *"abcdefg"),))
    parts = split_columns(grid, 30)
    assert [part.title for part in parts] == ["Wide", "", ""]
    assert [head for part in parts for head in part.header[1:]] == list(header[1:])
    assert [cell for part in parts for cell in part.totals[0][1:]] == list("abcdefg")
    assert all(part.header[0] == "layer" for part in parts)
    assert max(map(len, to_plain(parts).splitlines())) <= 30
    assert split_columns(grid, 500) == [grid]
    assert len(split_columns(grid, 3)) == 7
