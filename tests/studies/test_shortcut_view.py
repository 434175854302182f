"""What a study of shortcuts says and draws, on a study made by hand: no model is trained."""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from overlaps.folded import fisher, squares

from commonweight import overlap
from commonweight.base import UsageError
from commonweight.base.text import Grid
from commonweight.fusion import simplex_path
from commonweight.overlaps.alignment import Alignment
from commonweight.overlaps.table.table import OverlapTable
from commonweight.studies.shortcuts import figures
from commonweight.studies.shortcuts.figures import figures_of, plot_triangle
from commonweight.studies.shortcuts.report import figure_links, report, triangle_accuracy, walk_accuracy
from commonweight.studies.shortcuts.results import ShortcutStudy
from commonweight.verdicts import NEEDS

if TYPE_CHECKING:
    from pathlib import Path

CODES = ("st", "op", "tic")
DATA = ("original", *CODES)
NAMES = tuple(f"{model}/{data}" for model in ("start", *CODES) for data in DATA)
POINTS = [0.0, 0.5, 1.0]
TRIANGLE = simplex_path(steps=6)
SLOPE = [0.5 + 0.5 * point[0] for point in TRIANGLE]


def table(rule: str, seed: int) -> OverlapTable:
    rng = np.random.default_rng(seed)
    terms = {}
    for layer in ("body.0.weight", "body.1.weight", "head.weight"):
        vectors = rng.random((len(NAMES), 6))
        terms[layer] = vectors @ vectors.T
    return OverlapTable(
        names=NAMES,
        kind="fisher",
        terms=terms,
        left_out=(),
        alignment=Alignment(NAMES, np.zeros((len(NAMES), len(NAMES)))),
        counts=dict.fromkeys(NAMES, 50),
        effective_sample_size=dict.fromkeys(NAMES, 40.0),
        fisher_types=dict.fromkeys(NAMES, rule),
    )


def study(seeds: int, rules: tuple[str, ...] = ("empirical",)) -> ShortcutStudy:
    sets = [f"{data} dev" for data in DATA]
    right = {name: {"accuracy": 0.9, "loss": 0.1} for name in sets}
    scores = {"start": right, **dict.fromkeys(CODES, right)}
    scores["op"] = right | {"op dev": {"accuracy": 0.48, "loss": 1.0}}
    walks = []
    for a, b in permutations(CODES, 2):
        if CODES.index(a) < CODES.index(b):
            walks.append({
                "from": a,
                "to": b,
                "points": POINTS,
                "accuracy": {d: [0.9, 0.6, 0.8] for d in ("original", a, b)},
            })
        falls = {"original": [0.9, 0.8, 0.7], a: [0.9, 0.5, 0.25]}
        walks.append({"from": a, "to": "random", "points": POINTS, "accuracy": falls, "as_far_as": b})
    return ShortcutStudy(
        SimpleNamespace(shortcuts=CODES, footprints={name: tuple(name.split("/")) for name in NAMES}),  # type: ignore[arg-type]
        (scores,) * seeds,
        (dict.fromkeys(sets, 0.54),) * seeds,
        (tuple(walks),) * seeds,
        {rule: tuple(table(rule, 10 * i + seed) for seed in range(seeds)) for i, rule in enumerate(rules)},
        (dict.fromkeys(DATA, "rows 1 to 50"),) * seeds,
        ({"corners": CODES, "points": TRIANGLE, "accuracy": dict.fromkeys(DATA, SLOPE)},) * seeds,
    )


def grids(found: ShortcutStudy) -> dict[str, Grid]:
    return {block.title: block for block in report(found) if isinstance(block, Grid)}


def test_who_reads_whose_rows() -> None:
    sentences = [block for block in report(study(1)) if isinstance(block, str)]
    reads = [sentence for sentence in sentences if " reads " in sentence]
    assert len(reads) == 1
    assert reads[0].startswith("st reads tic's rows: same label 1.000, opposite 0.000, nothing 0.000")
    assert not [sentence for sentence in sentences if "only one of them knows" in sentence]


def test_a_shortcut_that_was_not_learned_is_said() -> None:
    said = [block for block in report(study(2)) if isinstance(block, str) and "did not learn" in block]
    assert said == [
        "op did not learn its shortcut (accuracy 0.480, a constant answer 0.540): its overlaps mean nothing."
    ]


def test_traces_are_the_diagonals_of_the_summed_terms() -> None:
    found = study(2)
    rows = {row[0]: row[1:] for row in grids(found)["Fishers, Fisher type empirical (mean over seeds)"].rows}
    assert list(rows) == list(NAMES)
    place = NAMES.index("op/st")
    traces = [sum(term[place, place] for term in table.terms.values()) for table in found.tables["empirical"]]
    assert rows["op/st"] == (f"{sum(traces) / 2:.4g}", "40.0")


def test_the_layers_have_the_same_input_and_intervals() -> None:
    found = study(3)
    grid = grids(found)["Raw Fisher overlap of st and tic layer by layer, Fisher type empirical"]
    assert grid.header == ("layer", "shared", "unshared", "same input, first", "same input, second")
    value = found.cells("empirical", "head")[("st", "tic")]["same input, second"]
    assert grid.rows[-1][-1] == f"{value.value:.4f} ± {value.half_width():.4f}"


def test_fisher_types_stand_side_by_side_where_there_are_two() -> None:
    title = "Does the conclusion depend on the Fisher type? Shared − unshared, raw"
    assert title not in grids(study(1))
    found = study(1, ("empirical", "exact"))
    grid = grids(found)[title]
    assert grid.header == ("models", "Fisher type empirical", "Fisher type exact")
    wanted = [found.contrasts(rule)[("st", "op")]["shared − unshared"].value for rule in ("empirical", "exact")]
    assert grid.rows[0] == ("st, op", *(f"{value:+.4f}" for value in wanted))


def test_the_walks_are_written_with_both_controls() -> None:
    grid = grids(study(2))["Accuracy on the way from st to op, and as far in a random direction (mean over seeds)"]
    assert grid.header == ("way, rows", "0.00", "0.50", "1.00")
    rows = {row[0]: row[1:] for row in grid.rows}
    assert rows["op to random, op"] == ("0.900", "0.500", "0.250")
    assert len(rows) == 3 + 2 + 2
    with pytest.raises(UsageError, match="no walk from op to st"):
        walk_accuracy(study(1), "op", "st")


@pytest.mark.parametrize(("seeds", "whiskers"), [(1, 0), (2, 0), (3, 4)])
def test_whiskers_of_layers_only_from_three_seeds_on(seeds: int, whiskers: int) -> None:
    ax = Figure().subplots()
    lines = figures.plot_layer_curves(study(seeds), ax)
    assert len([drawn for drawn in ax.collections if drawn.get_gid() == "whiskers"]) == whiskers
    assert ("(whiskers: 95 % over 3 seeds)" in ax.get_xlabel()) == bool(whiskers)
    assert ax.get_xlabel().startswith("raw Fisher overlap of st and op, normalised per layer, Fisher type empirical")
    assert {line.get_linestyle() for line in lines.values()} == {"None"}  # layers are not joined
    assert ax.get_legend() is not None
    ax = Figure().subplots()
    figures.plot_layer_curves(study(seeds), ax, panel=True)
    assert ax.get_legend() is None
    assert ax.get_xlabel() == "st and op"


@pytest.mark.parametrize(("seeds", "end"), [(1, ""), (2, "\n(whiskers: 95 % over 2 seeds)")])
def test_the_axis_of_bars_says_what_whiskers_are(seeds: int, end: str) -> None:
    ax = Figure().subplots()
    figures.plot_overlap_bars(study(seeds), ax)
    assert ax.get_ylabel() == f"raw Fisher overlap, Fisher type empirical{end}"


def test_figures_are_listed_for_markdown(tmp_path: Path) -> None:
    drawn = [tmp_path / "figures" / name for name in ("overlaps-empirical.png", "overlaps-empirical.pdf", "walks.png")]
    assert figure_links(tmp_path, drawn) == (
        "Figures (beside each the same as PDF and SVG):",
        "- [Overlaps of every pair of models, Fisher type empirical](figures/overlaps-empirical.png)",
        "- [Accuracies on the way from model to model](figures/walks.png)",
    )
    assert figure_links(tmp_path, []) == ()


def test_an_undefined_interval_has_no_whisker() -> None:
    found = study(3)
    holed = found.tables["empirical"][0]
    place = NAMES.index("st/original")
    for name, term in holed.terms.items():
        changed = term.copy()
        changed[place] = changed[:, place] = 0
        holed.terms[name] = changed  # type: ignore[index]
    assert math.isnan(found.cells("empirical")[("st", "op")]["shared"].half_width())
    bars = figures.plot_overlap_bars(found, Figure().subplots())
    assert bars["shared"].errorbar is not None
    whiskers = bars["shared"].errorbar.lines[2][0].get_segments()
    assert [len(w) > 0 and bool(np.isfinite(w).all()) for w in whiskers] == [False, False, True]


def test_a_shortcut_has_one_colour_in_every_walk() -> None:
    found = study(1)
    first = figures.plot_walk(found, Figure().subplots(), start="st", end="op")
    second = figures.plot_walk(found, Figure().subplots(), start="op", end="tic")
    third = figures.plot_walk(found, Figure().subplots(), start="op", end="random", as_far_as="st")
    assert first["op"].get_color() == second["op"].get_color() == third["op"].get_color()
    assert first["original"].get_color() == third["original"].get_color() == figures.ORIGINAL_COLOR
    assert len({to_hex(line.get_color()) for line in (*first.values(), second["tic"])}) == 4


def test_the_triangle_in_words_and_as_a_map() -> None:
    found = study(2)
    title = "Accuracy of the averages of st, op, tic (corners, middles and centre of their triangle; mean over seeds)"
    rows = {row[0]: row[1:] for row in grids(found)[title].rows}
    assert list(rows) == ["st", "op", "tic", "st+op", "st+tic", "op+tic", "st+op+tic"]
    assert rows["st"] == ("1.000",) * 4
    assert rows["op+tic"] == ("0.500",) * 4
    assert rows["st+op+tic"] == ("0.667",) * 4
    ax = Figure().subplots()
    cells = plot_triangle(found, ax, data="tic")
    assert list(cells.get_array()) == pytest.approx(SLOPE)
    assert len(cells.get_paths()) == len(TRIANGLE) == 28
    highest = max(cells.get_paths(), key=lambda path: path.vertices[:, 1].max())
    assert highest is cells.get_paths()[0]  # the first model is on top
    assert {"st", "op", "tic", "100", "50"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(UsageError, match="no set 'and'; it has original, st, op, tic"):
        plot_triangle(found, ax, data="and")
    two = dataclasses.replace(found, triangles=())
    assert title not in grids(two)
    with pytest.raises(UsageError, match="a triangle lies between three models"):
        triangle_accuracy(two)


def test_whiskers_that_leave_the_axes_are_cut_and_numbered() -> None:
    found = study(2)
    ax = Figure().subplots()
    bars = figures.plot_overlap_bars(found, ax)
    half = [cells[name].half_width() for name in bars for cells in found.cells("empirical").values()]
    mean = [cells[name].value for name in bars for cells in found.cells("empirical").values()]
    cut = [h for h, m in zip(half, mean, strict=True) if m + h > 1 or m - h < 0]
    assert 0 < len(cut) < len(half)
    assert sorted(text.get_text() for text in ax.texts) == sorted(f"±{value:.2f}" for value in cut)
    ends = [
        end for bar in bars.values() for whisker in bar.errorbar.lines[2][0].get_segments() for end in whisker[:, 1]
    ]
    assert min(ends) >= 0
    assert max(ends) <= 1
    assert ax.get_ylim()[1] > 1.1
    arrows = [line for line in ax.lines if line.get_gid() == "cut whisker"]
    assert {line.get_ydata()[0] for line in arrows} <= {0.0, 1.0}
    assert len(arrows) >= len(cut)


def test_nothing_is_cut_where_intervals_are_short() -> None:
    found = study(1)
    twice = dataclasses.replace(found, tables={"empirical": found.tables["empirical"] * 2})
    ax = Figure().subplots()
    figures.plot_overlap_bars(twice, ax)
    assert not ax.texts
    assert ax.get_ylim()[1] < 1.1


def test_a_curve_below_another_is_seen() -> None:
    lines = figures.plot_walk(study(1), Figure().subplots(), start="st", end="op")
    assert lines["st"].get_linewidth() > lines["op"].get_linewidth()
    assert lines["original"].get_zorder() > lines["st"].get_zorder()


def test_every_pair_has_its_panels() -> None:
    assert dict(figures_of(study(2))).keys() == {
        "overlaps-empirical",
        "layers-empirical",
        "walks",
        "triangle",
        "accuracies",
    }


def test_verdicts_with_difference_reason_and_what_was_not_learned() -> None:
    found = study(3)
    grid = grids(found)["Verdicts, Fisher type empirical"]
    assert grid.header == ("contrast", "verdict", "difference, and why", "with start")
    assert len(grid.rows) == 9
    rows = {row[0]: row[1:] for row in grid.rows}
    verdict = found.verdicts("empirical")[("st", "tic")]["shared − unshared"]
    assert rows["st, tic: shared − unshared"][:2] == (verdict.answer, verdict.brief)
    assert rows["st, op: shared − unshared"][0] == "inconclusive"
    assert rows["st, op: shared − unshared"][1].startswith("own shortcut not learned by 'op'")
    assert "learn" not in rows["st, tic: shared − unshared"][1]
    said = " ".join(block for block in report(found) if isinstance(block, str))
    assert "Differences of raw ones are shown, but they are inconclusive" in said
    assert "Each interval is at 95 %, and there are 9" in said
    layers = grids(found)["Verdicts on st and tic layer by layer, Fisher type empirical"]
    assert [row[0] for row in layers.rows] == list(found.layers)
    words = {"more", "less", *(f"inconclusive ({need.short})" for need in NEEDS)}
    assert all(cell.rpartition(", ")[2] in words for row in layers.rows for cell in row[1:])


def test_one_seed_without_folds_cannot_say_anything() -> None:
    found = study(1)
    grid = grids(found)["Verdicts, Fisher type empirical"]
    assert {row[1] for row in grid.rows} == {"inconclusive"}
    assert all("an interval needs at least 2 seeds" in row[2] for row in grid.rows)
    assert not [block for block in report(found) if isinstance(block, str) and "Each interval is at" in block]
    assert not [title for title in grids(found) if "orrected" in title]


def test_with_folds_corrected_overlaps_stand_below_the_raw_ones() -> None:
    found = study(1)
    folded = overlap({name: fisher(squares, seed=place, counts=[5] * 8) for place, name in enumerate(NAMES)})
    found = dataclasses.replace(found, tables={"empirical": (folded,)})
    titles = list(grids(found))
    assert "Corrected Fisher overlap of two models, Fisher type empirical" in titles
    grid = grids(found)["Corrected contrasts, Fisher type empirical"]
    value = folded.contrast(("st/original", "op/original"), ("st/st", "op/op"))
    assert grid.rows[0][1] == f"{value.value:+.4f} ± {value.half_width():.4f}"
    said = " ".join(block for block in report(found) if isinstance(block, str))
    assert "Verdicts are on corrected overlaps" in said
    assert "no folds" not in said
    assert "over folds: about other examples" in " ".join(block for block in report(found) if isinstance(block, str))
