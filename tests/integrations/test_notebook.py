"""What a notebook shows of results: small tables, escaped; asked of IPython's own formatter where it is installed."""

from __future__ import annotations

import pytest
import torch
from footprints.test_notebook_views import Page
from torch import nn

import commonweight
from commonweight.base.text import Grid
from commonweight.report.answer import Answer


@pytest.fixture(scope="module")
def results():
    torch.manual_seed(0)
    rows = [(torch.randn(60, 4), torch.arange(60) % 2)]
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    a = commonweight.fisher(model, rows, folds=4)
    model[0].weight.data.add_(0.1 * torch.randn(8, 4))
    b = commonweight.fisher(model, rows, folds=4)
    c = commonweight.fisher(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), rows, folds=4)
    table = commonweight.overlap({"a": a, "b": b, "<c>": c})
    answer = Answer("Do a & b share?", "They do.", Grid("Pairs", ("pair", "raw"), (("a, <b>", "0.9"),)), ("few rows",))
    return {
        "footprint": a,
        "table": table,
        "verdict": table.verdict(("a", "b"), ("a", "<c>"), same_rows=True),
        "answer": answer,
    }


def test_a_verdict_lists_what_was_asked(results):
    verdict = results["verdict"]
    page = Page(verdict._repr_html_())
    assert page.said == [f"{verdict}.", "What was asked"]
    assert page.rows[0] == ["need", "met", "what is wrong"]
    assert [row[:2] for row in page.rows[1:]] == [
        [finding.code, "yes" if finding.met else "no"] for finding in verdict.findings
    ]
    (lacking,) = (row for row in page.rows if row[0] == "shared initialisation")
    assert lacking[1:] == ["no", "no shared initialisation, so overlap is not sharing"]


def test_an_answer_is_its_question_answer_table_and_warnings(results):
    page = Page(results["answer"]._repr_html_())
    assert page.said == ["Do a & b share?", "They do.", "Pairs", "Beware: few rows"]
    assert page.rows == [["pair", "raw"], ["a, <b>", "0.9"]]


@pytest.mark.filterwarnings("ignore")  # of IPython's own
@pytest.mark.parametrize("name", ["footprint", "table", "verdict", "answer"])
def test_ipython_takes_it(results, name):
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(results[name])
    assert shown["text/html"] == results[name]._repr_html_()
    assert "<table>" in shown["text/html"]
    assert shown["text/plain"]
