"""What is said and drawn of a study of continual learning."""

from __future__ import annotations

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from studies.continual_parts import small_plan

from commonweight.base import UsageError
from commonweight.base.estimate import Estimate
from commonweight.base.text import Grid, to_markdown
from commonweight.report.files import write_figures
from commonweight.report.terminal import to_plain
from commonweight.studies.continual import figures as draw
from commonweight.studies.continual import figures as figure_module
from commonweight.studies.continual.answer import result
from commonweight.studies.continual.figures import figures_of
from commonweight.studies.continual.mask_figure import by_chance, mask_figures, plot_density, plot_sharing
from commonweight.studies.continual.report import mean_curve, report, signed
from commonweight.studies.continual.results import InferenceScore, load_masks
from commonweight.studies.continual.run import run_study
from commonweight.studies.continual.training import Curve
from commonweight.verdicts.verdict import null_verdict

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


def test_differences_of_approaches_are_in_every_form(study):
    approaches = ("classic", "transfer", "transfer-random")
    runs = {name: study.runs[name if name == "classic" else "transfer-random"] for name in approaches}
    found = result(replace(study, plan=replace(PLAN, approaches=approaches), runs=runs))
    ((name, difference),) = json.loads(found.json)["differences"].items()
    assert name == "transfer - transfer-random"
    assert difference == {
        "curve_area": {"values": [0.0, 0.0], "mean": 0.0, "half_width_95": 0.0}, "answer": "inconclusive"
    }  # fmt: skip
    assert "differences/transfer - transfer-random/curve_area,0.0,0.0,0.0 0.0" in found.csv.splitlines()
    assert "| transfer - transfer-random | 0 | inconclusive |" in found.to_markdown()
    assert json.loads(result(study).json)["differences"] == {}


def test_masks_and_similarities_against_their_null(study):
    grids = {block.title: block for block in report(study) if isinstance(block, Grid)}
    masks = grids["Jaccard index of the masks (mean over pairs of tasks and seeds)"]
    rows = {row[0]: row[1:] for row in masks.rows}
    corrected = Estimate.over_seeds([run.overlap.corrected.pooled[0, 1] for run in study.runs["classic"]])
    assert rows["classic, pooled"][3] == corrected.short()
    verdict = null_verdict(corrected, aligned=True, effective_sample_size=None)
    assert rows["classic, pooled"][4] == verdict.short != "inconclusive"
    moved = next(row for name, row in rows.items() if name.startswith("transfer"))
    assert moved[4] == "inconclusive"
    assert "Inconclusive: the value is undefined." in report(study)  # no formula for chance
    similar = grids["Task similarity in the classic network (every task with those before it; mean over seeds)"]
    for row in similar.rows:
        kind, layer = row[0].split(", ")
        tables = [run.similarity[kind] for run in study.runs["classic"]]
        assert row[2] == f"{sum(int(table.beats_null(layer)[1, 0]) for table in tables)} of 2"
        assert row[1] == Estimate.over_seeds([table.values[layer][1, 0] for table in tables]).short()
    one = replace(
        study,
        plan=replace(PLAN, seeds=1),
        facts=study.facts[:1],
        runs={name: runs[:1] for name, runs in study.runs.items()},
    )
    blocks = report(one)
    single = next(block for block in blocks if isinstance(block, Grid) and block.title.startswith("Jaccard"))
    assert {row[-1] for row in single.rows} == {"inconclusive"}
    assert (
        blocks.count("Inconclusive: an interval needs at least 2 seeds, and there are 1; or the value is undefined.")
        == 1
    )


def grid(study, title):
    return next(block for block in report(study) if isinstance(block, Grid) and block.title.startswith(title))


def told(study):
    return " ".join(block for block in report(study) if isinstance(block, str))


def test_steps_that_only_one_approach_takes_are_shown(study):
    usual = grid(study, "Accuracy while")
    assert usual.header[1:] == ("0", "1", "2")
    assert "A dash" not in told(study)
    classic = study.runs["classic"]
    longer = tuple(
        replace(run, curves=tuple(Curve((*c.steps, 3, 4), (*c.accuracies, 0.75, 0.875), 2) for c in run.curves))
        for run in classic
    )
    plan = replace(PLAN, approaches=("classic", "classic-double"))
    double = replace(study, plan=plan, runs={"classic": classic, "classic-double": longer})
    found = grid(double, "Accuracy while")
    assert found.header[1:] == ("0", "1", "2", "3", "4")
    assert [row[4:] for row in found.rows] == [("–", "–"), ("0.750", "0.875")]
    assert found.rows[0][1:4] == found.rows[1][1:4] == usual.rows[0][1:]
    assert "its area is that of the second half alone" in told(double)


def inferred(study, **shares):
    score = InferenceScore(**({"task": 0.5, "accuracy": 0.5, "accuracy_wrong_task_0": 0.5, "known": 0.5} | shares))
    scores = {4: dict.fromkeys(PLAN.inference, score)}
    return replace(
        study, runs={name: [replace(r, inference=scores) for r in runs] for name, runs in study.runs.items()}
    )


def test_inference_is_read_against_chance(study):
    at = inferred(study)
    assert {row[1] for row in grid(at, "With the task").rows} == {"0.500 ± 0.000"}
    assert "1/2 = 0.500." in told(at)
    below = inferred(study, task=0.25)
    assert {row[1] for row in grid(below, "With the task").rows} == {"0.250 ± 0.000*"}
    assert "1/2 = 0.500; * is below it: guessing would" in told(below)
    assert "Rows of dashes" not in told(below)
    nothing = inferred(study, **dict.fromkeys(InferenceScore.__dataclass_fields__, np.nan))
    assert {row[1:] for row in grid(nothing, "With the task").rows} == {("–",) * 4}
    assert told(nothing).count("Rows of dashes: nearest_statistics") == 1


def test_few_pairs_are_not_ranked(study):
    kind = study.runs["classic"][0].similarity["probed"]
    assert {row[-1] for row in grid(study, "Task similarity").rows} == {"–"}
    assert "The true similarity of 1 pair of tasks is known" in told(study)
    unknown = replace(study, facts=[{**facts, "truth": None} for facts in study.facts])
    assert "How alike these tasks truly are is not known" in told(unknown)
    assert "of 1 pair" not in told(unknown)
    names = tuple("abcd")
    values = np.arange(16.0).reshape(4, 4) / 16
    values = np.maximum(values, values.T)
    many = replace(
        kind,
        tasks=names,
        **{what: dict.fromkeys(kind.layers, values) for what in ("values", "null", "p")},
    )
    truth = values.tolist()
    runs = {name: [replace(run, similarity={"probed": many}) for run in runs] for name, runs in study.runs.items()}
    four = replace(
        study, plan=replace(PLAN, tasks=4), runs=runs, facts=[{**facts, "truth": truth} for facts in study.facts]
    )
    assert four.known_pairs == 6
    assert {row[-1] for row in grid(four, "Task similarity").rows} == {"+1.0000 (+1.0000, +1.0000)"}
    assert "over 6 pairs of tasks in every seed" in told(four)
    truth[3][0] = None
    assert four.known_pairs == 5
    assert {row[-1] for row in grid(four, "Task similarity").rows} == {"–"}


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
    ax.figure.canvas.draw()
    for axis, low, high in ((ax.xaxis, *ax.get_xlim()), (ax.yaxis, *ax.get_ylim())):
        seen = [label for label in axis.get_ticklabels() if low <= label.get_position()[axis is ax.yaxis] <= high]
        assert len(seen) >= 3
        assert all(float(label.get_text()) >= 0 for label in seen)  # plain numbers
    assert all(float(place).is_integer() for place in ax.get_xticks())
    assert len({line.get_linewidth() for line in lines.values()}) == 1


def test_a_curve_under_others_is_seen(study, ax):
    classic, other = study.runs.values()
    runs = {"classic": classic, "initialised": other, "transfer": classic, "transfer-random": classic}
    lines = draw.plot_learning_curves(replace(study, runs=runs), ax)
    widths = {name: line.get_linewidth() for name, line in lines.items()}
    assert widths["classic"] > widths["transfer"] > widths["transfer-random"] == widths["initialised"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0009, 1.1, [0.001, 0.01, 0.1, 1]),
        (0.01, 0.3, [0.01, 0.02, 0.05, 0.1, 0.2]),
        (0.04, 0.09, [0.04, 0.06, 0.08]),
        (0.65, 0.9, [0.7, 0.8, 0.9]),
        (0.801, 0.804, [0.801, 0.802, 0.803, 0.804]),
    ],
)
def test_a_narrow_range_has_ticks_too(low, high, expected):
    found = draw._round_ticks(low, high)
    assert found == expected


@pytest.mark.parametrize("height", [0.0, 0.3, 1.0])
def test_flat_curves_are_drawn(study, ax, height):
    flat = Curve((0, 1, 2), (height,) * 3)
    runs = {name: [replace(run, curves=(flat, flat)) for run in runs] for name, runs in study.runs.items()}
    draw.plot_learning_curves(replace(study, runs=runs), ax)
    ax.figure.canvas.draw()
    assert len(ax.get_yticks()) >= 3


def test_gains(study, ax):
    drawn = draw.plot_gains(study, ax)
    assert drawn.lines[0].get_xdata()[0] == pytest.approx(study.gain("transfer-random").value)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["transfer-random"]
    with pytest.raises(UsageError, match="no approach 'novel'"):
        draw.plot_gains(study, ax, reference="novel")


def test_the_accuracy_matrix(study, ax):
    drawn = draw.plot_accuracy_matrix(study, ax, approach="classic")
    shown = np.ma.filled(drawn.image.get_array(), np.nan)
    assert np.allclose(shown, np.mean([run.R for run in study.runs["classic"]], axis=0), equal_nan=True)
    assert len(ax.texts) == 3  # nothing is written where nothing was measured
    with pytest.raises(UsageError, match="no approach 'novel'"):
        draw.plot_accuracy_matrix(study, ax, approach="novel")


def test_files(study, run, tmp_path):
    assert to_markdown(report(study)).count("|") > 100
    figures = write_figures(drawn_figures(study, run).items(), tmp_path / "figures")
    assert {path.stem for path in figures} == {
        *("accuracy", "curves", "gains", "masks", "alphas"),
        *(f"{what}-{name}" for what in ("overlap", "similarity") for name in study.runs),
    }
    assert all(path.stat().st_size > 1000 for path in figures)


def drawn_figures(study, run):
    """All figures of a study, by name."""
    return dict([*figures_of(study), *mask_figures(load_masks(run, study, "classic"))])


def bars_of(figure):
    return [ax.get_ylabel() for ax in figure.axes if ax.get_label() == "<colorbar>"]


def panels_of(figure):
    return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def test_the_studys_figures_say_what_they_show_and_have_a_colour_bar_per_scale(study, run, tmp_path, monkeypatch):
    kept = drawn_figures(study, run)
    similarity = "task similarity, {}\n(* not above its null)"
    bars = {
        "accuracy": ["accuracy"],
        "overlap-classic": ["Jaccard index beyond chance"],
        "similarity-classic": [similarity.format("every layer"), similarity.format("probed")],
        "alphas": ["alpha, mean over layers"],
        "masks": [""],
    }
    for name, labels in bars.items():
        assert bars_of(kept[name]) == labels
    assert {name: kept[name].get_suptitle() for name in bars} == {
        "accuracy": "Accuracies, mean over 2 seeds",
        "overlap-classic": "classic, seed 0",
        "similarity-classic": "classic, seed 0",
        "alphas": "Alphas, seed 0",
        "masks": "mask of fc2.weight, seed 0",
    }
    assert [ax.get_title() for ax in panels_of(kept["overlap-classic"])] == ["fc1", "fc2", "out", "pooled"]
    assert [ax.get_title() for ax in panels_of(kept["similarity-classic"])] == ["bn1", "bn2"] * 2
    assert [ax.get_title() for ax in panels_of(kept["alphas"])] == ["transfer-random"]
    assert [ax.get_title() for ax in panels_of(kept["masks"])] == [
        f"task {study.tasks[0][0]}",
        "density per unit",
        "shared by tasks",
    ]
    assert "depth" not in kept  # heat maps show every layer


def test_a_deep_network_has_depth_curves_and_heat_maps_of_three_layers(study, run, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_module, "MOST_LAYERS", 1)
    monkeypatch.setattr(figure_module, "_shown", lambda layers: (layers[0], layers[len(layers) // 2], layers[-1]))
    kept = drawn_figures(study, run)
    masks, means, probed = panels_of(kept["depth"])
    assert masks.get_legend_handles_labels()[1] == list(study.runs)
    assert [tick.get_text() for tick in masks.get_xticklabels()] == ["fc1", "fc2", "out"]
    assert [tick.get_text() for tick in means.get_xticklabels()] == ["bn1", "bn2"]
    by_hand = np.mean([run.overlap.by_layer["fc2"][0, 1] for run in study.runs["classic"]])
    assert masks.lines[0].get_ydata()[1] == pytest.approx(by_hand)
    chance = np.mean([run.overlap.chance.by_layer["fc2"][0, 1] for run in study.runs["classic"]])
    assert masks.lines[1].get_ydata()[1] == pytest.approx(chance)
    by_hand = np.mean([run.similarity["probed"].values["bn1"][[0, 1], [1, 0]].mean() for run in study.runs["classic"]])
    assert probed.lines[0].get_ydata()[0] == pytest.approx(by_hand)
    assert kept["depth"].get_suptitle().startswith("Mean over pairs of tasks, 2 seeds; dotted: chance")


def test_no_picture_is_wider_than_a_page(study):
    many = replace(study, runs={f"{name}-{k}": runs for k in range(5) for name, runs in study.runs.items()})
    kept = dict(figures_of(many))
    assert max(figure.get_figwidth() for figure in kept.values()) <= 12
    assert len(panels_of(kept["accuracy"])) == 10


def test_three_layers_of_many_are_shown():
    assert figure_module._shown(("a", "b", "c")) == ("a", "b", "c")
    assert figure_module._shown(tuple("abcdefg")) == ("a", "d", "g")


def test_flipped_bits_are_called_so(study, run):
    masks = load_masks(run, study, "classic")
    flipped = {task: replace(mask, metadata={**mask.metadata, "flipped": True}) for task, mask in masks.items()}
    ((_, figure),) = mask_figures(flipped)
    assert figure.get_suptitle() == "flipped bits of the mask of fc2.weight, seed 0"


def test_density_and_sharing_of_masks(ax):
    one, other = np.array([[1, 1, 0], [0, 0, 0]], dtype=bool), np.array([[1, 0, 0], [0, 0, 1]], dtype=bool)
    lines = plot_density({"a": one, "b": other}, ax)
    assert lines["a"].get_ydata().tolist() == pytest.approx([0, 2 / 3])
    assert ax.get_legend_handles_labels()[1] == ["a task", "95 % of units by chance"]
    bars = plot_sharing({"a": one, "b": other}, ax)
    found = np.array([3, 2, 1]) / 6  # weights kept by none, one and both
    assert [bar.get_height() for bar in bars] == pytest.approx(list(found - np.array([4, 4, 1]) / 9))
    assert by_chance([0.2, 0.5, 0.5]).tolist() == pytest.approx([0.2, 0.45, 0.3, 0.05])


def test_nothing_global_is_touched(study, tmp_path):
    write_figures(figures_of(study), tmp_path)
    assert plt.get_fignums() == []  # nothing global is touched
