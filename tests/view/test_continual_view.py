"""What is said and drawn of a study of continual learning."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from studies.continual_parts import small_plan

from commonweight import UsageError
from commonweight.decision.verdict import null_verdict
from commonweight.overlaps.estimate import Estimate
from commonweight.studies.continual.reading import load_masks
from commonweight.studies.continual.run import run_study
from commonweight.text import Grid
from commonweight.view import continual_figures as draw
from commonweight.view.continual import mean_curve, report, signed
from commonweight.view.continual_files import write_figures, write_mask_figure, write_tables
from commonweight.view.estimates import estimate
from commonweight.view.plain import to_plain

PLAN = small_plan(
    scenario="rotated", tasks=2, rows=100, hidden=(8, 6), seeds=2, approaches=("classic", "transfer-random"),
    inference_rows=4, inference_batches=(4,),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("view") / "run"


@pytest.fixture(scope="module")
def study(run):
    return run_study(run, PLAN)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_the_report_has_every_part(study):
    text = " ".join(to_plain(report(study)).split())
    for part in (
        "2 tasks (rotated digits)",
        "Accuracy with the task known (seeds: 2)",
        "transfer-random",
        "With the task inferred",
        "Final accuracy on every task",
        "Jaccard index of the masks",
        "Task similarity in the classic network",
        "Alphas of seed 0",
        "drawn at random",
        "How to read this",
    ):
        assert part in text
    assert "nan" not in text
    assert f"{study.average_accuracy('classic').value:.4f}" in text
    only = {"approaches": ("classic",)}
    single = replace(study, plan=replace(PLAN, **only), runs={"classic": study.runs["classic"]})
    assert "transfer-random" not in to_plain(report(single))


def test_masks_and_similarities_against_their_null(study):
    grids = {block.title: block for block in report(study) if isinstance(block, Grid)}
    masks = grids["Jaccard index of the masks (mean over pairs of tasks and seeds)"]
    rows = {row[0]: row[1:] for row in masks.rows}
    corrected = Estimate.over_seeds([run.overlap.corrected.pooled[0, 1] for run in study.runs["classic"]])
    assert rows["classic, pooled"][3] == estimate(corrected)
    assert rows["classic, pooled"][4] == null_verdict(corrected).answer != "cannot say"
    moved = next(row for name, row in rows.items() if name.startswith("transfer"))
    assert moved[4] == "cannot say: the value is undefined"  # no formula for chance
    similar = grids["Task similarity in the classic network (every task with those before it; mean over seeds)"]
    for row in similar.rows:
        kind, layer = row[0].split(", ")
        tables = [run.similarity[kind] for run in study.runs["classic"]]
        assert row[2] == f"{sum(int(table.beats_null(layer)[1, 0]) for table in tables)} of 2"
        assert row[1] == estimate(Estimate.over_seeds([table.values[layer][1, 0] for table in tables]))
    one = replace(
        study,
        plan=replace(PLAN, seeds=1),
        facts=study.facts[:1],
        runs={name: runs[:1] for name, runs in study.runs.items()},
    )
    single = next(block for block in report(one) if isinstance(block, Grid) and block.title.startswith("Jaccard"))
    assert single.rows[0][-1] == "cannot say: an interval needs at least 2 seeds, and there are 1"


def test_nothing_lost_is_a_plain_zero(study):
    assert signed(study.backward_transfer("classic")) == "0"
    assert signed(study.gain("transfer-random")).startswith(("+", "-"))


def test_learning_curves(study, ax):
    lines = draw.plot_learning_curves(study, ax)
    assert list(lines) == ["classic", "transfer-random"]
    curve = mean_curve(study, "classic")
    assert np.allclose(lines["classic"].get_ydata(), [1 - value for value in curve.values()])
    assert list(lines["classic"].get_xdata()) == list(curve) == [0, 1, 2]
    by_hand = np.mean([run.curves[1].accuracies[-1] for run in study.runs["classic"]])
    assert curve[2] == pytest.approx(by_hand)
    assert ax.get_yscale() == "log"


def test_gains(study, ax):
    drawn = draw.plot_gains(study, ax)
    assert drawn.lines[0].get_xdata()[0] == pytest.approx(study.gain("transfer-random").value)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["transfer-random"]
    with pytest.raises(UsageError, match="no approach 'novel'"):
        draw.plot_gains(study, ax, reference="novel")


def test_the_accuracy_matrix(study, ax):
    image = draw.plot_accuracy_matrix(study, ax, approach="classic")
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.allclose(shown, np.mean([run.R for run in study.runs["classic"]], axis=0), equal_nan=True)
    assert len(ax.texts) == 3  # nothing is written where nothing was measured
    with pytest.raises(UsageError, match="no approach 'novel'"):
        draw.plot_accuracy_matrix(study, ax, approach="novel")


def test_files(study, run, tmp_path):
    assert write_tables(study, tmp_path).read_text().count("|") > 100
    figures = write_figures(study, tmp_path / "figures")
    figures += write_mask_figure(load_masks(run, study, "classic"), tmp_path / "figures")
    assert {path.stem for path in figures} == {
        *("accuracy", "curves", "gains", "masks", "alphas-transfer-random"),
        *(f"{what}-{name}" for what in ("overlap", "similarity") for name in study.runs),
    }
    assert all(path.stat().st_size > 1000 for path in figures)
    assert plt.get_fignums() == []  # nothing global is touched
