"""Figures are tested by what they drew, not by pixels."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import commonweight
from commonweight.base import UsageError
from commonweight.report.curves import plot_layer_overlap


def table(names="ab"):
    torch.manual_seed(0)
    footprints = {
        name: commonweight.Footprint(
            "fisher", {"one.weight": torch.rand(3, 2), "two.weight": torch.rand(4), "dead.weight": torch.zeros(2)}, 5
        )
        for name in names
    }
    return commonweight.overlap(footprints)


def test_dots_line_and_bars_are_the_numbers_of_the_table():
    found = table()
    figure, ax = plt.subplots()
    drawn = plot_layer_overlap(found, ax)
    x, y = np.asarray(drawn.overlaps.get_offsets()).T
    assert y.tolist() == [0, 1]  # the dead layer has no overlap, so no dot
    assert x.tolist() == [found.by_layer["one"][0, 1], found.by_layer["two"][0, 1]]
    assert drawn.pooled.get_xdata()[0] == found.pooled[0, 1]
    assert [bar.get_width() for bar in drawn.shares] == [found.trace_share[layer].min() for layer in found.layers]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two", "dead"]
    assert ax.get_xlabel() == "fisher overlap of a and b"
    plt.close(figure)


def test_a_pair_must_be_named_where_there_are_more():
    figure, ax = plt.subplots()
    with pytest.raises(UsageError, match="3 footprints: name a pair of a, b, c"):
        plot_layer_overlap(table("abc"), ax)
    assert not ax.has_data()
    drawn = plot_layer_overlap(table("abc"), ax, pair=("c", "a"))
    assert drawn.pooled.get_xdata()[0] == table("abc").pooled[2, 0]
    plt.close(figure)
