"""What a notebook shows of a verification and of a footprint: small tables, escaped, and true."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
import torch
from diagonal_fisher.small import examples, small_mlp
from torch import tensor

import commonweight
from commonweight import Footprint
from commonweight.diagonal_fisher import Verification
from commonweight.diagonal_fisher.verification import DORMANT, Route
from commonweight.footprints.footprint import Fold, Spread


class Page(HTMLParser):
    """The cells row by row, and the paragraphs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.said = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1].append(data)
        elif self.open and self.open[-1] in {"p", "caption"}:
            self.said.append(data)


def test_a_verification_groups_its_routes():
    routes = {
        "late": DORMANT,
        **{f"{i}.weight": Route("rule", "linear_weight", 10.0**-i) for i in range(3, 9)},
        "odd": Route("generic", reason="no rule for <'odd'>"),
        "bias": Route("rule", "bias", 2e-9),
    }
    page = Page(Verification(routes, 3, 5e-3)._repr_html_())
    assert page.rows == [
        ["route", "rule", "parameters", "largest error", "names", "reason"],
        ["rule", "linear_weight", "6", "1.0e-03", "3.weight, 4.weight, 5.weight, 6.weight, … (6 in all)", "–"],
        ["rule", "bias", "1", "2.0e-09", "bias", "–"],
        ["generic", "–", "1", "–", "odd", "no rule for <'odd'>"],
        ["dormant", "–", "1", "–", "late", "not used by the rows looked at"],
    ]
    assert page.said == [
        "Routes (parameters: 9)",
        "Compared on 3 rows; largest error of a rule: 1.0e-03 (accepted: 5e-03).",
    ]


def test_a_footprint_shows_its_layers_with_their_share_of_the_trace():
    footprint = commonweight.fisher(small_mlp(), [examples()], folds=2)
    page = Page(footprint._repr_html_())
    share = footprint.trace("0") / footprint.trace()
    assert page.rows == [
        ["layer", "parameters", "trace share"],
        ["0", "2", f"{share:.4f}"],
        ["2", "2", f"{1 - share:.4f}"],
    ]
    assert page.said[0] == "Footprint of kind fisher (parameters: 4, layers: 2)"
    assert page.said[1] == (
        f"8 examples, {footprint.effective_sample_size:.1f} effective, trace {footprint.trace():.6g}, Fisher type "
        "empirical, "
        "loss classification, 2 folds."
    )


def test_no_tensor_is_read_where_the_spread_says_the_trace(tmp_path, monkeypatch):
    footprint = Footprint.load(commonweight.fisher(small_mlp(), [examples()]).save(tmp_path / "f"))
    expected = footprint._repr_html_()

    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(type(footprint.tensors), "__getitem__", refuse)
    assert footprint._repr_html_() == expected
    with pytest.raises(AssertionError, match="a tensor was read"):
        footprint.trace()


def test_a_layer_inside_another_is_not_counted_twice_and_names_are_escaped():
    tensors = {"<b>.scale": tensor([1.0]), "<b>.1.weight": tensor([[1.0, 2.0]])}
    for spread in ({}, {"<b>.1": Spread(12.0, 50.0)}):
        text = Footprint("fisher", tensors, 4, spread=spread)._repr_html_()
        assert "<b>" not in text
        assert Page(text).rows[1:] == [["<b>", "1", "0.2500"], ["<b>.1", "1", "0.7500"]]


def test_undefined_is_a_dash_and_other_kinds_have_no_trace():
    zero = Page(Footprint("fisher", {"w": torch.zeros(2)}, 4)._repr_html_())
    assert zero.rows[1] == ["w", "1", "–"]
    assert zero.said[1] == "4 examples, trace 0."
    broken = Page(Footprint("fisher", {"w": tensor([math.nan])}, 4)._repr_html_())
    assert broken.rows[1] == ["w", "1", "–"]
    activity = Footprint("activity", {"bn.mean": tensor([-1.0, 1.0])}, 4, folds=(Fold(4, {}),))
    assert Page(activity._repr_html_()).rows == [["layer", "parameters"], ["bn", "1"]]
