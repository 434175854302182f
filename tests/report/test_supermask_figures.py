"""Figures of supermasks, tested by what they drew, not by pixels."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from footprints.masked import ROWS, trained

from commonweight.base.errors import UsageError
from commonweight.base.text import number
from commonweight.footprints.of_masks import activity_footprint, supermask_footprint
from commonweight.overlaps.similarity.means import every_layer_similarity
from commonweight.overlaps.similarity.probed import probed_similarity
from commonweight.overlaps.table.table import overlap
from commonweight.report.maps import (
    colour_bar,
    plot_alphas,
    plot_overlap_matrix,
    plot_similarity,
    plot_supermask,
)
from commonweight.transfer.alphas import transfer_alphas


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def masks(scores="independent"):
    net = trained(scores)
    return overlap({task: supermask_footprint(net, task) for task in net.tasks})


def similar():
    net = trained()
    return every_layer_similarity({task: activity_footprint(net, task) for task in net.tasks}, draws=99)


def texts(drawn):
    return [each.get_text() for each in drawn.numbers]


@pytest.mark.parametrize("as_input", [lambda m: m, lambda m: m.numpy(), lambda m: m.float().tolist()])
def test_the_notebooks_picture(ax, tmp_path, monkeypatch, as_input):
    monkeypatch.chdir(tmp_path)
    mask = trained().mask("b", "3.weight")
    drawn = plot_supermask(ax, as_input(mask), "b")
    assert ax.get_title() == "Neural Activity for Task b"
    assert ax.get_xlabel() == ax.get_ylabel() == "Neuron Index"
    assert np.array_equal(drawn.image.get_array(), mask.numpy())
    assert drawn.image.get_cmap().name == "gray_r"
    assert drawn.image.get_clim() == (0, 1)
    assert drawn.colorbar.ax in ax.figure.axes
    assert list(tmp_path.iterdir()) == []


def test_other_words_than_the_notebooks(ax):
    words = {"title": "mask of 0.weight, task {task}", "xlabel": "input", "ylabel": "unit"}
    plot_supermask(ax, torch.ones(3, 4), "{b}", **words)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("mask of 0.weight, task {b}", "input", "unit")


def test_a_full_mask_is_black_and_an_empty_one_is_not(ax):
    full = plot_supermask(ax, torch.ones(3, 4, dtype=torch.bool), 0).image
    assert full.to_rgba(full.get_array())[..., :3].max() == 0
    empty = plot_supermask(ax, np.zeros((3, 4)), 1).image
    assert empty.to_rgba(empty.get_array())[..., :3].min() == 1


def test_a_convolution_is_laid_out_by_output_channel(ax):
    mask = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2) % 2 == 0
    assert np.array_equal(plot_supermask(ax, mask, 0).image.get_array(), mask.reshape(2, 12).numpy())


def test_scores_and_vectors_are_refused(ax):
    with pytest.raises(UsageError, match="pass the bits, not the scores"):
        plot_supermask(ax, torch.randn(3, 4), 0)
    with pytest.raises(UsageError, match=r"at least two dimensions, got shape \[3\]"):
        plot_supermask(ax, torch.ones(3), 0)


def test_overlaps_with_numbers(ax):
    table = masks("shared")
    drawn = plot_overlap_matrix(table, ax)
    assert np.array_equal(drawn.image.get_array(), table.pooled)
    assert texts(drawn) == [f"{value:.2f}" for value in table.pooled.reshape(-1)]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
    assert colour_bar(drawn, [ax]).ax.get_ylabel() == "Jaccard index"
    assert ax.get_title() == "pooled"
    one = plot_overlap_matrix(table, ax, layer="3")
    assert texts(one)[1] == f"{table.by_layer['3'][0, 1]:.2f}"
    with pytest.raises(UsageError, match="no layer '9' in this table"):
        plot_overlap_matrix(table, ax, layer="9")


def test_overlaps_of_masks_are_beyond_chance_where_that_is_known(ax):
    table = masks()
    drawn = plot_overlap_matrix(table, ax, layer="0")
    assert drawn.words == "Jaccard index beyond chance"
    assert texts(drawn)[0] == number(table.corrected.by_layer["0"][0, 1], 2)
    assert len(drawn.numbers) == 6  # not the diagonal
    low, high = drawn.image.get_clim()
    every = [table.corrected.pooled, *table.corrected.by_layer.values()]
    assert -low == high == max(np.nanmax(np.abs(values)) for values in every)
    assert plot_overlap_matrix(table, ax).image.get_clim() == (low, high)  # one scale for all layers


def test_similarities_mark_what_does_not_beat_its_null(ax):
    found = similar()
    drawn = plot_similarity(found, ax)
    expected = [
        f"{value:.2f}" + ("" if i == j or found.beats_null("1")[i, j] else "*")
        for (i, j), value in np.ndenumerate(found.values["1"])
    ]
    assert texts(drawn) == expected
    starred = any(text.endswith("*") for text in expected)
    assert starred
    assert drawn.words == "task similarity, every layer\n(* not above its null)"
    assert drawn.image.get_clim() == (0, 1)
    with pytest.raises(UsageError, match="no layer '7' among these similarities; there are 1, 4"):
        plot_similarity(found, ax, layer="7")


def test_probed_similarities_say_which_side_is_which_and_have_a_scale_of_their_own(ax):
    found = probed_similarity(trained(), {"new": [ROWS]}, draws=19)
    drawn = plot_similarity(found, ax, layer="4")
    assert len(drawn.numbers) == 3
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("through the mask of", "data of")
    smallest = min(np.nanmin(values) for values in found.values.values())
    low, high = drawn.image.get_clim()
    assert high == 1
    assert smallest - 0.05 < low <= smallest or low == 0.95
    assert plot_similarity(found, ax, layer="1").image.get_clim() == (low, high)
    assert drawn.image.get_cmap().name != plot_similarity(similar(), ax).image.get_cmap().name


def test_alphas(ax):
    found = transfer_alphas(similar(), "c", "mean")
    drawn = plot_alphas([None, None, found], ("a", "b", "c"), ax)
    shown = np.ma.filled(drawn.image.get_array(), np.nan)
    assert np.allclose(shown, [[np.nan] * 3, [np.nan] * 3, [0.5, 0.5, np.nan]], equal_nan=True)
    assert texts(drawn) == ["0.50"] * 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("prior task", "while training")


def test_many_cells_go_without_numbers(ax):
    generator = torch.Generator().manual_seed(0)
    from commonweight.footprints.footprint import Footprint

    many = {f"t{i}": Footprint("activity", {"bn.m": torch.randn(8, generator=generator)}, 0) for i in range(16)}
    drawn = plot_overlap_matrix(overlap(many), ax)
    assert drawn.numbers == ()
    assert drawn.image.get_clim() == (-1, 1)


def test_undefined_cells_do_not_look_like_0(ax):
    drawn = plot_overlap_matrix(masks(), ax)
    ax.figure.canvas.draw()
    cells = drawn.image.to_rgba(drawn.image.get_array())
    assert (cells[0, 0, 3], cells[0, 1, 3]) == (0, 1)  # what is undefined lets the axes through
    assert ax.get_facecolor()[:3] == pytest.approx((0.8, 0.8, 0.8))
    assert not np.allclose(drawn.image.cmap(drawn.image.norm(0.0))[:3], ax.get_facecolor()[:3], atol=0.1)


@pytest.mark.parametrize("count", [20, 21, 250])
def test_names_do_not_cover_each_other(ax, count):
    from commonweight.footprints.footprint import Footprint

    many = {f"t{i}": Footprint("activity", {"bn.m": torch.randn(4)}, 0) for i in range(count)}
    plot_overlap_matrix(overlap(many), ax)
    for axis in (ax.xaxis, ax.yaxis):
        names = {
            int(place): label.get_text()
            for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        }
        assert names[0] == "t0"
        assert all(name == f"t{place}" for place, name in names.items())
        assert len(names) == 20 if count == 20 else 10 <= len(names) < 21


def test_neurons_are_counted_in_whole_numbers_and_masks_may_be_of_any_type(ax):
    drawn = plot_supermask(ax, torch.ones(4, 5, dtype=torch.bfloat16), "a")
    assert drawn.image.get_array().all()
    ax.figure.canvas.draw()
    assert all(float(place).is_integer() for place in ax.get_yticks())
    plt.sca(ax)
    ax.set_xticks([0.5])  # the caller's own choice stays
    plot_supermask(ax, torch.ones(4, 5), "a")
    assert ax.get_xticks().tolist() == [0.5]
