"""Going on with a study of shortcuts: what is kept, what is asked of the texts, and how a plan is corrected."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
import weakref
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import datasets
import pytest
from damage import content
from safetensors.torch import load_file, save_file
from studies.shortcut_texts import CODES, SIZES, tiny_plan, triangle

from commonweight import fuse_checkpoints
from commonweight.base import UsageError, progress
from commonweight.base.records import sealed
from commonweight.fusion import simplex_path
from commonweight.studies.shortcuts import run as running
from commonweight.studies.shortcuts import scoring
from commonweight.studies.shortcuts.models import independent_initialisation
from commonweight.studies.shortcuts.plan import SeedFolder
from commonweight.studies.shortcuts.report import report
from commonweight.studies.shortcuts.run import run_and_write, run_study, study_outlook
from commonweight.studies.shortcuts.scoring import load_classifier, score, scored_sets, walk

if TYPE_CHECKING:
    from pathlib import Path

    from commonweight.studies.shortcuts.plan import Plan
    from commonweight.studies.shortcuts.results import ShortcutStudy


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, ShortcutStudy]:
    return triangle(tmp_path_factory)


@pytest.fixture
def done(finished: tuple[Path, Plan, ShortcutStudy], tmp_path: Path) -> tuple[Path, Plan, ShortcutStudy]:
    """A copy, for tests that change it."""
    run, plan, study = finished
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run", plan, study


def test_the_control_with_an_independent_initialisation_is_added_to_a_finished_study(
    done: tuple[Path, Plan, ShortcutStudy],
) -> None:
    run, plan, study = done
    before = {place: place.stat().st_mtime_ns for place in run.rglob("*.safetensors") if place.stem != "overlap"}
    asked = replace(plan, independent_initialisation=True)
    assert study_outlook(run, asked).models > study_outlook(run, plan).models == 0
    said: list[str] = []
    found = run_study(run, asked, note=said.append)
    assert found is not None
    assert {place: place.stat().st_mtime_ns for place in before} == before
    assert [sentence for sentence in said if "training" in sentence] == [
        f"seed 0: training independent-initialisation on {SIZES['train'][1]} rows"
    ]
    assert [place.name for place in (run / "seed-0").iterdir() if place.name.startswith(".")] == []
    assert list(found.scores[0])[:4] == ["start", "random-labels", "independent-initialisation", "st"]
    assert {name: found.scores[0][name] for name in study.scores[0]} == dict(study.scores[0])
    (table,) = found.tables["empirical"]
    for other in ("start", "random-labels", *CODES):
        assert (
            table.alignment.reading("independent-initialisation/original", f"{other}/original")
            == "no shared initialisation"
        )
    withheld = table.verdict(
        ("independent-initialisation/original", "st/original"), ("op/original", "st/original"), same_rows=True
    )
    assert withheld.answer == "inconclusive"
    assert withheld.lacking[0].code == "shared initialisation"
    verdict = found.verdicts("empirical")[("st", "op")]["shared − unshared"]
    assert list(verdict.controls) == ["with start", "with random-labels", "with independent-initialisation"]
    ends = [table.contrast(*sides) for sides in (
        (("independent-initialisation/original", "op/original"), ("independent-initialisation/st", "op/op")),
        (("st/original", "independent-initialisation/original"), ("st/st", "independent-initialisation/op")),
    )]  # fmt: skip
    assert verdict.controls["with independent-initialisation"].value == pytest.approx(
        (ends[0].value + ends[1].value) / 2
    )
    text = " ".join(block for block in report(found) if isinstance(block, str))
    accuracy = found.accuracy("independent-initialisation", "st dev").value
    assert f"drawn anew (accuracy on st dev {accuracy:.3f}, a constant answer" in text
    assert "With the other models: no shared initialisation (relative weight distance at least" in text
    again = run_study(run, plan)  # once it is there, it stays
    assert again is not None
    assert again.to_json() == found.to_json()


def test_the_independent_initialisation_has_nothing_of_the_start(finished: tuple[Path, Plan, ShortcutStudy]) -> None:
    folder = SeedFolder(finished[0] / "seed-0", 0)
    start = load_classifier(folder.model("start"))
    draws = []
    for _ in range(2):
        with independent_initialisation(folder) as place:
            draws.append(load_classifier(place))
        assert not place.exists()
    assert draws[0].config.to_diff_dict() == start.config.to_diff_dict()
    for name, weight in draws[0].named_parameters():
        assert weight.equal(draws[1].get_parameter(name)), name
        if weight.ndim > 1:
            ours, theirs = weight.detach().flatten(), start.get_parameter(name).detach().flatten()
            assert abs(float(ours @ theirs / ours.norm() / theirs.norm())) < 0.5, name


def test_only_the_average_that_footprints_need_is_written(
    finished: tuple[Path, Plan, ShortcutStudy], tmp_path: Path
) -> None:
    run, plan, study = finished
    folder = SeedFolder(run / "seed-0", 0)
    assert [place.name for place in (run / "seed-0" / "averages").iterdir()] == ["st+op+tic"]
    assert {"st+op", "st+tic", "op+tic", "st+op+tic"} <= set(study.scores[0])
    written = fuse_checkpoints(
        [folder.model(code) for code in ("st", "tic")], output=tmp_path / "pair", note=lambda _: None
    )
    rows = scored_sets(plan, folder, "dev")
    assert study.scores[0]["st+tic"]["tic dev"] == asdict(score(load_classifier(written), rows["tic"]))


def test_nothing_is_written_without_room(
    done: tuple[Path, Plan, ShortcutStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [done[0] / "seed-0" / "models" / code for code in CODES]
    size = (models[0] / "model.safetensors").stat().st_size
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, size))
    with pytest.raises(UsageError, match=r"average needs 0\.02 GB of disk, and 0\.00 GB are free there; make room"):
        fuse_checkpoints(models, output=tmp_path / "average", note=lambda _: None)
    assert not [place for place in tmp_path.iterdir() if "average" in place.name]


def test_nothing_is_trained_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    plan = tiny_plan(tmp_path)
    run_study(tmp_path / "run", plan, until="build")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 10**6))
    with pytest.raises(UsageError, match=r"models/st needs 0\.02 GB of disk"):
        run_study(tmp_path / "run", plan, until="train")
    assert [place.name for place in (tmp_path / "run" / "seed-0" / "models").iterdir()] == ["start"]


def test_a_walk_holds_its_own_models_only(
    done: tuple[Path, Plan, ShortcutStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SeedFolder(done[0] / "seed-0", 0)
    before = json.loads(folder.paths.read_text())
    folder.paths.unlink()
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def loads(place: Path, **given: bool) -> object:
        nonlocal most
        gc.collect()
        alive.add(model := load_classifier(place, **given))
        most = max(most, len(alive))
        return model

    monkeypatch.setattr(scoring, "load_classifier", loads)
    walk(done[1], folder, lambda _: None)
    assert most == 2
    assert json.loads(folder.paths.read_text()) == before


def test_a_finished_study_needs_no_texts(
    done: tuple[Path, Plan, ShortcutStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opens(*_: object, **__: object) -> None:
        raise UsageError("the texts were opened")

    monkeypatch.setattr(running, "open_source", opens)
    run, plan, study = done
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = run_study(run, plan)
    assert again is not None
    assert again.to_json() == study.to_json()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    (run / "seed-0" / "scores.json").unlink()  # made from models and rows that are there
    again = run_study(run, plan)
    assert again is not None
    assert again.scores == study.scores
    shutil.rmtree(run / "seed-0" / "data" / "op")
    with pytest.raises(UsageError, match="the texts were opened"):
        run_study(run, plan, until="build")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer_config.json", None])
def test_another_checkpoint_in_the_place_of_the_encoder_is_another_study(
    done: tuple[Path, Plan, ShortcutStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    run, plan, study = done
    copy = shutil.copytree(plan.model, tmp_path / "encoder")
    record = content(run / "run.json")
    record["asked"]["model"] = str(copy)
    (run / "run.json").write_text(json.dumps(sealed(record)))
    plan = replace(plan, model=str(copy))
    if file is None:
        shutil.rmtree(copy)
        again = run_study(run, plan)  # the study needs it no more
        assert again is not None
        assert again.to_json() == replace(study, plan=plan).to_json()
        return
    if file == "model.safetensors":
        weights = load_file(copy / file)
        save_file({name: tensor + 1 for name, tensor in weights.items()}, copy / file, {"format": "pt"})
    else:
        changed = json.loads((copy / file).read_text()) | {"extra": 1}
        (copy / file).write_text(json.dumps(changed))
    for asked in (plan, replace(plan, seeds=2)):
        with pytest.raises(UsageError, match="holds a run of something else: SHA-256 of the start was"):
            run_study(run, asked)


def test_the_triangle_is_scored_where_it_is_missing(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    (found,) = study.triangles
    assert tuple(found["corners"]) == CODES
    assert [tuple(point) for point in found["points"]] == list(simplex_path(steps=6))
    (there,) = (walk for walk in study.paths[0] if (walk["from"], walk["to"]) == ("st", "op"))
    corner = found["points"].index([0.0, 1.0, 0.0])
    assert found["accuracy"]["op"][corner] == there["accuracy"]["op"][-1]
    assert set(found["accuracy"]) == {"original", *CODES}
    (run / "seed-0" / "triangle.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors") if path.stem != "overlap"}
    again = run_study(run, plan)
    assert again is not None
    assert again.to_json() == study.to_json()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_walks_with_controls_of_another_kind_are_taken_again(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, study = done
    former = json.loads((run / "seed-0" / "paths.json").read_text())["paths"]
    wrong = [found | {"accuracy": {name: [0.0, 0.0] for name in found["accuracy"]}} for found in former]
    (run / "seed-0" / "paths.json").write_text(json.dumps(sealed({"paths": wrong})))
    said: list[str] = []
    again = run_study(run, plan, note=said.append)
    assert again is not None
    assert again.paths == study.paths
    assert [sentence for sentence in said if "random directions are not drawn row by row" in sentence]


def test_tables_and_figures_with_the_study(
    done: tuple[Path, Plan, ShortcutStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan, study = done
    found = run_and_write(run, plan)
    assert found is not None
    assert found.to_json() == study.to_json()
    assert "corners, middles and centre of their triangle" in (run / "study.md").read_text()
    names = {"overlaps-empirical", "layers-empirical", "walks", "triangle", "accuracies"}
    assert {path.stem for path in (run / "figures").iterdir()} == names

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    assert run_and_write(run, plan, note=said.append) is not None
    assert [sentence for sentence in said if sentence.startswith("no figures: they need matplotlib")]
    assert run_and_write(run, plan, until="build") is None


def test_a_plan_can_be_corrected_until_something_was_trained(tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = tiny_plan(tmp_path)
    with pytest.raises(UsageError, match=r"train_rows must lie in 1\.\.240, the rows that are left .*; got 10000$"):
        run_study(run, replace(plan, train_rows=10_000), until="build")
    assert not run.exists()
    run_study(run, replace(plan, train_rows=200), until="build")
    (run / "seed-0" / "models" / ".start.0.new").mkdir()
    said: list[str] = []
    run_study(run, replace(plan, train_rows=100, seeds=2), until="build", note=said.append)
    assert [s for s in said if "nothing was trained for the former plan" in s and "train_rows was 200" in s]
    assert len(datasets.load_from_disk(str(run / "seed-0" / "data" / "st"))["train"]) == 100
    run_study(run, replace(plan, train_rows=60), until="build")
    assert len(datasets.load_from_disk(str(run / "seed-0" / "data" / "st"))["train"]) == 60
    assert not (run / "seed-1" / "data").exists()  # one seed is asked for now
    saved = run / "seed-0" / "models" / ".st.training" / "checkpoint-4"
    saved.mkdir(parents=True)
    (saved / "trainer_state.json").write_text("{}")
    with pytest.raises(UsageError, match=r"train_rows was 60, is now None.*first remove .*seed-0, with the models"):
        run_study(run, plan, until="build")
    assert saved.exists()
    shutil.rmtree(run / "seed-0")  # as the error says
    run_study(run, plan, until="build")


def test_texts_longer_than_the_model_reads_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_length 600 is more than the model can read; give at most 24"):
        run_study(tmp_path / "run", tiny_plan(tmp_path, max_length=600), until="build")


def test_results_without_their_models_are_not_thrown_away(done: tuple[Path, Plan, ShortcutStudy]) -> None:
    run, plan, _ = done
    shutil.rmtree(run / "seed-0" / "models")
    with pytest.raises(UsageError, match=r"epochs was 1\.0, is now 2\.0.*Choose another folder.*or, to begin anew"):
        run_study(run, replace(plan, epochs=2.0))
    assert (run / "seed-0" / "scores.json").is_file()


def test_no_bars_unless_they_are_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path)
    capfd.readouterr()
    run_study(tmp_path / "run", plan, until="train")
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()
    monkeypatch.setattr(progress, "DELAY", 0)
    with progress.shown():
        run_study(tmp_path / "shown", plan, until="train")
    assert re.search(r"training st: .* step/s|training st: .* s/ step", capfd.readouterr().err)


def test_a_second_process_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path)
    refused = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(UsageError, match="another process works in") as found:
            run_study(tmp_path / "run", plan, until="build")
        refused.append(found)

    monkeypatch.setattr(running, "_do", meanwhile)
    run_study(tmp_path / "run", plan, until="build")
    assert len(refused) == 1
