"""What is said of a table: verdicts in grids, how many were looked at, and what is missing without folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from overlaps.folded import fisher, squares
from torch import tensor

from commonweight import Footprint, overlap
from commonweight.base.text import Grid
from commonweight.footprints.footprint import Spread
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.table.numbers import WHOLE
from commonweight.report.overlap import answer
from commonweight.report.verdicts import MOST_CONTRASTS, WITHOUT_FOLDS, Contrast, verdict_blocks
from commonweight.studies.compare.contrasts import Cell, contrasts_of

MODELS, DATA = ("one", "two"), ("x", "y")


@pytest.fixture(scope="module")
def table():
    names = [f"{model}/{data}" for model in MODELS for data in DATA]
    return overlap({name: fisher(squares, seed=seed, counts=[5] * 8) for seed, name in enumerate(names)})


def contrasts(table, rows=None):
    return contrasts_of({name: Cell(*name.split("/"), rows=rows or name.split("/")[1]) for name in table.names})


def grids(blocks):
    return {block.title: block for block in blocks if isinstance(block, Grid)}


def test_every_pair_against_its_null_and_every_contrast(table):
    found = grids(verdict_blocks(table, contrasts(table)))
    nulls = found["Verdicts: above its null?"]
    assert [row[0] for row in nulls.rows][:2] == ["one/x and one/y", "one/x and two/x"]
    verdict = table.verdict(("one/x", "one/y"))
    assert nulls.rows[0][1::2] == (verdict.answer, verdict.brief)
    assert nulls.rows[0][2] == f"0 of {len(table.layers)}"
    shown = found["Verdicts: which pair shares more?"]
    assert [row[0] for row in shown.rows] == [
        "1. one/x and one/y against two/x and two/y",
        "2. one/x and two/x against one/y and two/y",
    ]
    first = table.verdict(("one/x", "one/y"), ("two/x", "two/y"), same_rows=True)
    assert shown.rows[0][1::2] == (first.answer, first.brief)
    assert "the two sides have different source rows" in shown.rows[1][3]
    assert "the two sides have different source rows" not in shown.rows[0][3]
    by_layer = found["Verdicts by layer: which pair shares more?"]
    assert by_layer.header == ("layer", "1.", "2.")
    assert [row[0] for row in by_layer.rows] == list(table.layers)


def test_an_answer_is_one_or_two_sentences(table):
    one = answer(overlap({name: fisher(squares, seed=seed, counts=[5] * 8) for seed, name in enumerate("ab")}))
    assert one.beware[0].startswith("Whether the models come from a shared initialisation was not measured")
    asked = [Contrast(("one/x", "two/x"), ("one/y", "two/y"), True, f"Question {number}?") for number in range(5)]
    for found in (one, answer(table), answer(table, contrasts(table))):
        assert found.answer.count(". ") <= 1
    found = answer(table, asked)
    assert found.answer.startswith("Question 0? Inconclusive (")
    assert (found.answer.count("Question "), found.rest) == (2, ("--verbose answers 3 more questions",))


def test_layers_of_other_rows_decide_nothing():
    """Footprints that differ by what data they are of: every layer of the same rows would decide."""

    def leaning(code):
        def examples(generator, count, shape):
            place = torch.arange(int(np.prod(shape))).reshape(shape) + 1.0
            return (torch.rand((count, *shape), generator=generator) + 1.0) * place**code

        return examples

    lean = {"one/x": 1.0, "two/x": 1.1, "one/y": 1.0, "two/y": 3.0}
    shapes = {"a.weight": (6, 5), "b.weight": (4, 6)}
    found = overlap({name: fisher(leaning(code), shapes, seed=5, counts=[5] * 8) for name, code in lean.items()})
    found = replace(
        found,
        alignment=Alignment(found.names, np.zeros((4, 4))),
        effective_sample_size=dict.fromkeys(found.names, 40.0),
        spread=dict.fromkeys(found.names, dict.fromkeys("ab", Spread(40.0, 40.0))),
    )
    pairs = (("one/x", "two/x"), ("one/y", "two/y"))
    for layer in (None, *"ab"):
        assert found.verdict(*pairs, layer=layer, same_rows=True).answer == "shares more"
    for same, words in ((True, "more"), (False, "inconclusive (other rows)")):
        tables = grids(verdict_blocks(found, contrasts(found, "all" if same else None)))
        place = [row[0][3:] for row in tables["Verdicts: which pair shares more?"].rows].index(
            "one/x and two/x against one/y and two/y"
        )
        assert tables["Verdicts: which pair shares more?"].rows[place][2] == f"{2 * same} more, 0 less of 2"
        column = [row[1 + place] for row in tables["Verdicts by layer: which pair shares more?"].rows]
        assert column == [words, words]


def test_how_many_were_looked_at(table):
    said = " ".join(block for block in verdict_blocks(table, contrasts(table)) if isinstance(block, str))
    assert f"there are {6 * 4}" in said
    assert f"there are {2 * 4}" in said
    assert "not about other training runs" in said
    assert "One overlap alone" in said


def test_without_contrasts_there_are_only_nulls(table):
    assert list(grids(verdict_blocks(table))) == [
        "Verdicts: above its null?",
        "Verdicts by layer: above its null?",
    ]


def test_by_depth(table):
    by_layer = grids(verdict_blocks(table, by=0))["Verdicts by layer: above its null?"]
    assert [row[0] for row in by_layer.rows] == [WHOLE]
    assert verdict_blocks(table, by="parameter") == verdict_blocks(table)


def test_no_more_contrasts_than_can_be_read_and_it_is_said():
    names = [f"{model}/x" for model in "abcd"]
    table = overlap({name: fisher(squares, seed=seed, counts=[5] * 8) for seed, name in enumerate(names)})
    blocks = verdict_blocks(table, contrasts(table))
    shown = grids(blocks)["Verdicts: which pair shares more?"]
    assert len(shown.rows) == MOST_CONTRASTS
    assert not [block for block in blocks if isinstance(block, str) and "contrasts are shown" in block]
    more = [f"{model}/x" for model in "abcde"]
    table = overlap({name: fisher(squares, seed=seed, counts=[5] * 8) for seed, name in enumerate(more)})
    said = [block for block in verdict_blocks(table, contrasts(table)) if isinstance(block, str)]
    assert any(block.startswith("12 of 30 contrasts are shown") for block in said)


def test_without_folds_one_sentence_and_nothing_for_masks():
    plain = {name: Footprint("fisher", {"w.weight": tensor([1.0, 2.0])}, 8) for name in "ab"}
    assert verdict_blocks(overlap(plain)) == [WITHOUT_FOLDS]
    assert "--folds 8" in WITHOUT_FOLDS
    masks = {name: Footprint("supermask", {"w.weight": tensor([1, 0])}, 8) for name in "ab"}
    assert verdict_blocks(overlap(masks)) == []
