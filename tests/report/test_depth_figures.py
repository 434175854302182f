"""Figures of overlap against depth, tested by what they drew, not by pixels."""

import math

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from commonweight.base.errors import UsageError
from commonweight.base.estimate import Estimate
from commonweight.report.curves import DepthCurve, plot_depth

LAYERS = ("fc1", "fc2", "out")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def curve(name, means, spread=0.01, **options):
    estimates = {
        layer: Estimate.over_seeds([mean - spread, mean, mean + spread])
        for layer, mean in zip(LAYERS, means, strict=True)
    }
    return DepthCurve(name, estimates, **options)


def test_a_curve_has_a_point_per_layer_its_interval_and_its_null(ax):
    null = dict.fromkeys(LAYERS, 0.3)
    drawn = plot_depth([curve("8 px", (0.9, 0.8, 0.7), null=null), curve("26 px", (0.2, 0.4, 0.6))], ax)
    assert drawn.lines["8 px"].get_ydata().tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert [label.get_text() for label in ax.get_xticklabels()] == list(LAYERS)
    heights = drawn.bands["8 px"].get_paths()[0].vertices[:, 1]
    expected = curve("8 px", (0.9, 0.8, 0.7)).estimates
    assert heights.max() == pytest.approx(expected["fc1"].high)
    assert heights.min() == pytest.approx(expected["out"].low)
    assert list(drawn.nulls["8 px"].get_ydata()) == [0.3] * 3
    assert drawn.nulls["8 px"].get_linestyle() == ":"
    assert set(drawn.nulls) == {"8 px"}
    assert ax.get_legend_handles_labels()[1] == ["8 px", "26 px"]


def test_an_undefined_layer_is_a_gap_and_few_seeds_have_no_band(ax):
    one, two = (
        DepthCurve(str(seeds), {layer: Estimate.over_seeds([0.5, 0.6][:seeds]) for layer in LAYERS}) for seeds in (1, 2)
    )
    drawn = plot_depth([curve("gap", (0.9, math.nan, 0.7)), one, two], ax)
    assert np.isnan(drawn.lines["gap"].get_ydata()).tolist() == [False, True, False]
    assert set(drawn.bands) == {"gap"}


def test_curves_that_cannot_stand_side_by_side_are_refused(ax):
    with pytest.raises(UsageError, match="at least one curve"):
        plot_depth([], ax)
    with pytest.raises(UsageError, match="name of its own, got a, a"):
        plot_depth([curve("a", (0.1, 0.2, 0.3)), curve("a", (0.1, 0.2, 0.3))], ax)
    other = DepthCurve("b", {"bn1": Estimate.over_seeds([0.5])})
    with pytest.raises(UsageError, match=r"same layers: 'b' has bn1, and 'a' fc1, fc2, out"):
        plot_depth([curve("a", (0.1, 0.2, 0.3)), other], ax)
