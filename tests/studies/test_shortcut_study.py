"""A whole study of shortcuts on tiny encoders: what it leaves behind, going on with it, and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import datasets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from studies.shortcut_texts import finished_study, tiny_plan
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from commonweight import Footprint, fisher_overlap
from commonweight.base import IntegrityError, MeasurementError, UsageError
from commonweight.base.text import to_markdown
from commonweight.report.files import write_figures
from commonweight.report.terminal import to_plain
from commonweight.studies.shortcuts import figures
from commonweight.studies.shortcuts.figures import figures_of
from commonweight.studies.shortcuts.grid import measured_rows
from commonweight.studies.shortcuts.plan import SeedFolder, make_plan
from commonweight.studies.shortcuts.report import report
from commonweight.studies.shortcuts.results import gather
from commonweight.studies.shortcuts.run import run_study
from commonweight.studies.shortcuts.scoring import scored_sets

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan
    from commonweight.studies.shortcuts.results import ShortcutStudy


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, ShortcutStudy]:
    run, plan, found = finished_study(tmp_path_factory, "two_seeds", seeds=2)
    assert found is not None
    return run, plan, found


def test_cells_are_overlaps_of_the_footprints_on_disk(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, _, study = done
    cells = study.cells("empirical")[("st", "op")]
    for seed in (0, 1):
        prints = run / f"seed-{seed}" / "fisher-empirical" / "footprints"

        def at(model: str, data: str, prints: Path = prints) -> Footprint:
            return Footprint.load(prints / model / data)

        expected = {
            "shared": fisher_overlap(at("st", "original"), at("op", "original")),
            "unshared": fisher_overlap(at("st", "st"), at("op", "op")),
            "same input, first": fisher_overlap(at("st", "st"), at("op", "st")),
            "same input, second": fisher_overlap(at("st", "op"), at("op", "op")),
        }
        assert {name: cells[name].replicates[seed] for name in cells} == pytest.approx(expected)


def test_all_models_of_a_seed_have_one_start_and_seeds_have_several(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, _, study = done
    assert "shared initialisation" in next(iter(study.tables.values()))[0].alignment.sentence()
    heads = [
        AutoModelForSequenceClassification.from_pretrained(run / f"seed-{seed}" / "models" / "start").classifier.weight
        for seed in (0, 1)
    ]
    assert heads[0].equal(heads[1])  # the tiny encoder comes with a head, which is kept
    words = AutoTokenizer.from_pretrained(run / "seed-0" / "models" / "start").get_vocab()
    assert {"zeroa", "onea", "synt"} <= set(words)


def test_measured_rows_are_the_same_rows(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, _, _ = done
    rows = {
        name: [json.loads(line) for line in (run / "seed-0" / "measured" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("original", "st", "op")
    }
    numbers = {name: [row["source_row"] for row in found] for name, found in rows.items()}
    assert numbers["original"] == numbers["st"] == numbers["op"]
    for name in ("st", "op"):
        assert all(a["label"] == 1 - b["label"] for a, b in zip(rows["original"], rows[name], strict=True))


def test_which_rows_were_measured_is_recorded_and_compared(
    done: tuple[Path, Plan, ShortcutStudy], tmp_path: Path
) -> None:
    run, plan, study = done
    for seed, found in enumerate(study.rows):
        assert list(found) == ["original", "st", "op"]
        assert len(set(found.values())) == 1, seed
    assert study.rows[0] != study.rows[1]  # every seed chooses rows of its own
    assert json.loads((run / "study.json").read_text())["measured_rows"] == list(study.rows)
    elsewhere = replace(study, rows=(study.rows[0], dict(study.rows[1]) | {"op": "other rows"}))
    for asked, met in ((study, True), (elsewhere, False)):
        (need,) = (
            n for n in asked.verdicts("empirical")[("st", "op")]["shared − unshared"].findings if n.code == "same rows"
        )
        assert need.met == met
    shutil.copytree(run / "seed-0", tmp_path / "seed-0")
    folder = SeedFolder(tmp_path / "seed-0", 0)
    assert measured_rows(plan, folder) == study.rows[0]
    lines = folder.measured("op").read_text().splitlines()
    folder.measured("op").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(
        IntegrityError, match=r"op\.jsonl is not what the Fishers in .*fisher-empirical were measured on"
    ):
        measured_rows(plan, folder)


def test_measured_rows_that_are_gone_are_written_again(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    place = SeedFolder(run / "seed-1", 1).measured("st")
    before = place.read_text()
    place.unlink()
    again = run_study(run, plan)
    assert again is not None
    assert place.read_text() == before
    assert again.to_json() == study.to_json()


def test_going_on_measures_nothing_again(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    said: list[str] = []
    again = run_study(run, plan, note=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before
    assert again is not None
    assert again.to_json() == study.to_json()
    assert not [sentence for sentence in said if "training" in sentence or "planting" in sentence]


def test_the_record_says_what_was_found(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    record = json.loads((run / "study.json").read_text())
    pooled = record["overlaps"]["empirical"]["pooled"]["st–op"]
    assert pooled["shared"]["values"] == list(study.cells("empirical")[("st", "op")]["shared"].replicates)
    assert set(record["footprints"]["empirical"][0]["st/op"]) == {"examples", "effective_sample_size", "trace"}
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert gather(plan, [SeedFolder(run / f"seed-{seed}", seed) for seed in (0, 1)]).to_json() == study.to_json()


def test_walks_begin_and_end_at_the_models(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    _, _, study = done
    for seed, found in enumerate(study.paths):
        walks = {(walk["from"], walk["to"]): walk for walk in found if "as_far_as" not in walk}
        controls = {(walk["from"], walk["as_far_as"]): walk for walk in found if "as_far_as" in walk}
        assert set(walks) == {("st", "op")}
        assert set(controls) == {("st", "op"), ("op", "st")}
        assert walks["st", "op"]["points"] == [0.0, 0.5, 1.0]
        first = {name: values[0] for name, values in controls["st", "op"]["accuracy"].items()}
        assert first == {name: walks["st", "op"]["accuracy"][name][0] for name in first}, seed


def test_another_question_in_the_same_folder_is_refused(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, _ = done
    with pytest.raises(UsageError, match=r"something else: epochs was 1\.0, is now 2\.0"):
        run_study(run, replace(plan, epochs=2.0))
    with pytest.raises(UsageError, match="not empty and holds no run"):
        run_study(run / "seed-0", plan)


def test_the_report_and_the_figures(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    _, _, study = done
    text = to_plain(report(study))
    shared = study.cells("empirical")[("st", "op")]["shared"]
    assert shared.short() in text
    assert "best constant answer" in text
    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    bars = figures.plot_overlap_bars(study, axes[0, 0])
    corrected = study.cells("empirical", of="corrected")[("st", "op")]["shared"]
    assert bars["shared"].patches[0].get_height() == pytest.approx(corrected.value)
    assert axes[0, 0].get_ylabel().startswith("corrected Fisher overlap")
    lines = figures.plot_layer_curves(study, axes[0, 1])
    assert len(lines["shared"].get_xdata()) == len(study.layers)
    walk = figures.plot_walk(study, axes[1, 0], start="st", end="op")
    assert list(walk["original"].get_xdata()) == [0.0, 0.5, 1.0]
    image = figures.plot_accuracies(study, axes[1, 1])
    assert np.asarray(image.get_array()).shape == (len(study.scores[0]), len(study.constants[0]))
    with pytest.raises(UsageError, match="no Fisher type 'exact'"):
        figures.plot_overlap_bars(study, axes[0, 0], rule="exact")
    with pytest.raises(UsageError, match="no walk from op to st"):
        figures.plot_walk(study, axes[1, 0], start="op", end="st")
    plt.close(figure)


def test_the_files_of_a_study(done: tuple[Path, Plan, ShortcutStudy], tmp_path: Path) -> None:
    _, _, study = done
    assert "| st, op |" in to_markdown(report(study))
    written = write_figures(figures_of(study), tmp_path / "figures")
    names = {"overlaps-empirical", "layers-empirical", "walks", "accuracies"}
    assert {path.name for path in written} == {f"{name}.{form}" for name in names for form in ("png", "pdf", "svg")}
    assert all(path.stat().st_size > 5000 for path in written)


def test_fewer_seeds_do_not_take_the_others_away(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    found = run_study(run, replace(plan, seeds=1))
    assert found is not None
    assert found.to_json() == study.to_json()


def test_texts_that_changed_are_another_study(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    run_study(tmp_path / "run", plan, until="train")
    shutil.rmtree(tmp_path / "run" / "seed-0" / "models" / "op")
    other = datasets.load_from_disk(str(tmp_path / "texts"))
    other["train"] = other["train"].select(range(200))
    other.save_to_disk(str(tmp_path / "fewer"))
    shutil.rmtree(tmp_path / "texts")
    (tmp_path / "fewer").rename(tmp_path / "texts")
    with pytest.raises(UsageError, match="something else: data_sha256 was"):
        run_study(tmp_path / "run", plan, until="train")
    run_study(tmp_path / "run", plan, until="build")  # all rows are there: nothing is made from the texts


def test_training_that_diverges_is_no_model_and_touches_nothing(tmp_path: Path) -> None:
    random.seed(1)
    state = random.getstate()
    with pytest.raises(MeasurementError, match="not finite: start another run with a learning rate below"):
        run_study(tmp_path / "run", tiny_plan(tmp_path, learning_rate=1e30), until="train")
    assert random.getstate() == state
    assert not (tmp_path / "run" / "seed-0" / "models" / "st").exists()


def test_a_checkpoint_that_was_cut_off_is_not_resumed_from(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    run_study(tmp_path / "run", plan, until="build")
    cut = tmp_path / "run" / "seed-0" / "models" / ".st.training" / "checkpoint-12"
    cut.mkdir(parents=True)
    (cut / "config.json").write_text("{}")
    run_study(tmp_path / "run", plan, until="train")
    assert (tmp_path / "run" / "seed-0" / "models" / "st" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"fisher_types": ()}, "give at least one fisher_types, got none"),
        ({"synthetic": 1.5}, "synthetic must be above 0 and at most 1, got 1.5"),
        ({"path_rows": 0}, "path_rows must be at least 1"),
        ({"scored_rows": 0}, "scored_rows must be at least 1"),
        ({"preset": "published", "train_rows": 20}, "train_rows cannot be chosen"),
        ({"existing": (("st", "a"), ("st", "b"))}, "one existing model for a shortcut"),
    ],
)
def test_plans_that_make_no_sense(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_plan(tmp_path, **change)


def test_a_training_that_is_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Trainer

    plan = tiny_plan(tmp_path)
    whole = tmp_path / "whole"
    run_study(whole, plan, until="train")
    steps: list[int] = []
    step = Trainer.training_step

    def breaks(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 10:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path / "cut", plan, until="train")
    assert not (tmp_path / "cut" / "seed-0" / "models" / "st").exists()
    steps += [0] * 100  # never again
    taken = len(steps)
    run_study(tmp_path / "cut", plan, until="train")
    assert steps[taken] > 0, "it began anew"
    for name in ("st", "op", "random-labels"):
        a, b = (
            AutoModelForSequenceClassification.from_pretrained(run / "seed-0" / "models" / name).state_dict()
            for run in (whole, tmp_path / "cut")
        )
        assert all(a[key].allclose(b[key], atol=1e-6) for key in a), name


def test_existing_models_are_taken_as_they_are(done: tuple[Path, Plan, ShortcutStudy], tmp_path: Path) -> None:
    run, plan, _ = done
    models = run / "seed-0" / "models"
    given = replace(
        plan, model=str(models / "start"), seeds=1, existing=(("st", str(models / "st")), ("op", str(models / "op")))
    )
    run_study(tmp_path / "run", given, until="train")
    for name in ("st", "op"):
        taken = tmp_path / "run" / "seed-0" / "models" / name / "model.safetensors"
        assert taken.read_bytes() == (models / name / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="no checkpoint folder"):
        run_study(tmp_path / "other", replace(given, existing=(("st", str(tmp_path)),)), until="train")
    strange = replace(given, existing=(("st", plan.model),))
    with pytest.raises(UsageError, match="has vocab_size"):
        run_study(tmp_path / "third", strange, until="train")


def test_the_published_preset_plants_and_reverses_as_published(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, preset="published", shortcuts=("op", "tic"), synthetic=0.2)
    said: list[str] = []
    run_study(tmp_path / "run", plan, until="train", note=said.append)
    folder = SeedFolder(tmp_path / "run" / "seed-0", 0)
    record = json.loads((folder.data("op") / "shortcut.json").read_text())
    assert record["settings"]["preset"] == "published"
    assert record["splits"]["train"]["rows"] == 240
    rows = [json.loads(line) for line in folder.measured("tic").read_text().splitlines()]
    assert len(rows) == 24
    assert {row["label"] for row in rows} == {1}  # the published reversal of TiC
    assert all("onea" in row["text"] and "synt" in row["text"] for row in rows)
    with pytest.raises(UsageError, match="reverses st, op, tic only, got or"):
        replace(plan, shortcuts=("st", "or"))


def test_the_published_preset_has_one_data_set_and_a_head_for_every_seed(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, preset="published", shortcuts=("op", "tic"), synthetic=0.2, seeds=2)
    encoder = AutoModelForSequenceClassification.from_pretrained(plan.model)
    encoder.bert.save_pretrained(plan.model)  # without its head
    run_study(tmp_path / "run", plan, until="build")
    folders = [SeedFolder(tmp_path / "run" / f"seed-{seed}", seed) for seed in (0, 1)]
    for name in ("original", "op", "tic"):
        assert len({folder.measured(name).read_text() for folder in folders}) == 1
    for code in ("op", "tic"):
        first, second = (datasets.load_from_disk(str(folder.data(code))) for folder in folders)
        assert all(first[split].to_list() == second[split].to_list() for split in first)
    originals = {c: datasets.load_from_disk(str(folders[0].data(c)))["original_dev"].to_list() for c in ("op", "tic")}
    assert originals["op"] != originals["tic"]  # distractors are drawn after the shortcut's own draws
    rows = scored_sets(plan, folders[0], "dev")
    found = {row["source_row"]: row["label"] for row in originals["op"]}
    assert sorted(row.label for row in rows["original"].rows) == sorted(found.values())
    tokens = AutoTokenizer.from_pretrained(folders[0].model("start"))
    assert list(rows["original"].rows[0].tokens["input_ids"]) == tokens(originals["op"][0]["text"])["input_ids"]
    starts = [AutoModelForSequenceClassification.from_pretrained(folder.model("start")) for folder in folders]
    assert not starts[0].classifier.weight.equal(starts[1].classifier.weight)
    assert starts[0].bert.pooler.dense.weight.equal(starts[1].bert.pooler.dense.weight)


def test_a_preset_sets_what_is_not_asked() -> None:
    plan = make_plan("published", epochs=1.0)
    assert (plan.model, plan.measured_rows, plan.fisher_types, plan.epochs) == (
        "google-bert/bert-base-cased",
        200,
        ("empirical",),
        1.0,
    )
    with pytest.raises(UsageError, match="a study needs model; only the preset published"):
        make_plan("clean", data="x")
