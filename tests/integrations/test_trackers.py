"""Scalars in real trackers of accelerate: one of our own, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from integrations.tiny_trainer import tiny_model, trainer_of
from studies.continual_parts import small_plan
from torch import nn

import commonweight
from commonweight.base import IntegrityError, UsageError
from commonweight.integrations import OverlapCallback, log_continual, log_report, log_table
from commonweight.studies.continual.run import run_and_write


class Keeping(GeneralTracker):
    """A tracker of one's own, as accelerate documents it."""

    name = "keeping"
    requires_logging_directory = False

    def __init__(self):
        super().__init__()
        self.logged = []

    @property
    def tracker(self):
        return self.logged

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **_):
        self.logged.append((step, values))


@pytest.fixture
def keeping():
    tracker = Keeping()
    accelerator = Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("overlaps")
    return accelerator, tracker.logged


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(0)
    rows = [(torch.randn(40, 4), torch.arange(40) % 2)]
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    found = {"films": commonweight.fisher(model, rows, folds=4)}
    model[0].weight.data.add_(0.1)
    return commonweight.overlap(found | {"food": commonweight.fisher(model, rows, folds=4)})


def test_every_number_of_a_table_is_a_scalar(keeping, table):
    accelerator, logged = keeping
    log_table(accelerator, table, step=7)
    ((step, values),) = logged
    assert step == 7
    assert values["raw/pooled/films/food"] == table.pooled[0, 1]
    assert values["raw/layer_mean/films/food"] == table.layer_mean[0, 1]
    assert values["corrected/0/films/food"] == table.corrected.by_layer["0"][0, 1]
    assert values["noise_ceiling/pooled/food"] == table.noise_ceiling.pooled[1]
    estimate = table.estimate("corrected", "films", "food")
    assert values["corrected_low/pooled/films/food"] == pytest.approx(estimate.low)
    assert values["corrected_high/pooled/films/food"] == pytest.approx(estimate.high)
    numbers = [row for row in table.records() if row.a != row.b and not math.isnan(row.value)]
    assert len([name for name in values if "_low/" not in name and "_high/" not in name]) == len(numbers)
    assert all(isinstance(value, float) and not math.isnan(value) for value in values.values())
    with pytest.raises(UsageError, match="table must be a OverlapTable, got dict"):
        log_table(accelerator, {})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A small finished run."""
    folder = tmp_path_factory.mktemp("continual") / "run"
    plan = small_plan(tasks=2, scenario="permuted", approaches=("classic",), rows=200, inference_rows=20)
    run_and_write(folder, plan)
    return folder


def test_the_curves_of_a_finished_run(keeping, run_folder):
    accelerator, logged = keeping
    log_continual(accelerator, run_folder)
    steps = [step for step, _ in logged]
    assert steps == sorted(set(steps))
    found = {name: {step: values[name] for step, values in logged if name in values} for _, v in logged for name in v}
    study = json.loads((run_folder / "study.json").read_text(encoding="utf-8"))
    (record,) = study["approaches"].values()
    names = study["facts"][0]["names"]
    ((first, second),) = record["curves"]
    (R,) = record["R"]
    whole = first["steps"][-1]
    assert found == {
        f"learning/classic/seed-0/{names[0]}": dict(zip(first["steps"], first["accuracies"], strict=True)),
        f"learning/classic/seed-0/{names[1]}": {
            whole + step: value for step, value in zip(second["steps"], second["accuracies"], strict=True)
        },
        f"accuracy/classic/seed-0/{names[0]}": {whole: R[0][0], whole + second["steps"][-1]: R[1][0]},
        f"accuracy/classic/seed-0/{names[1]}": {whole + second["steps"][-1]: R[1][1]},
    }


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_mlflow_keeps_the_report(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
    (tmp_path / "report.html").write_text("<html>what was found</html>")
    accelerator = Accelerator(cpu=True, log_with="mlflow", project_dir=tmp_path)
    monkeypatch.chdir(tmp_path)  # where artefacts go
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    accelerator.init_trackers("overlaps")
    log_report(accelerator, tmp_path)
    kept = mlflow.artifacts.load_text(f"{mlflow.active_run().info.artifact_uri}/report.html")
    accelerator.end_training()
    assert kept == "<html>what was found</html>"


@pytest.mark.filterwarnings("ignore")  # of Weights & Biases' own
def test_weights_and_biases_keeps_the_report(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    (tmp_path / "report.html").write_text("<html>what was found</html>")
    accelerator = Accelerator(cpu=True, log_with="wandb")
    accelerator.init_trackers("overlaps")
    log_report(accelerator, tmp_path)
    accelerator.end_training()
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"commonweight-report" in written.read_bytes()


def test_a_tracker_without_files_and_a_run_without_a_report_are_refused(keeping, tmp_path):
    accelerator, _ = keeping
    with pytest.raises(UsageError, match=r"has no report\.html: write it with commonweight report"):
        log_report(accelerator, tmp_path)
    (tmp_path / "report.html").write_text("")
    with pytest.raises(UsageError, match="a tracker that keeps files, such as mlflow or wandb, got keeping"):
        log_report(accelerator, tmp_path)


def test_a_folder_without_a_run_is_refused(keeping, tmp_path):
    accelerator, _ = keeping
    with pytest.raises(UsageError, match=r"has no accuracies\.csv: give the folder of a finished run"):
        log_continual(accelerator, tmp_path)
    (tmp_path / "accuracies.csv").write_text("approach,seed,measured,step,task,accuracy\nclassic,0,learning,x,a,1\n")
    with pytest.raises(IntegrityError, match="cannot be read"):
        log_continual(accelerator, tmp_path)


def scalars_in(folder):
    """Read what TensorBoard holds: name -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return found


@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own imports
def test_tensorboard_has_the_numbers(tmp_path, table, run_folder):
    pytest.importorskip("tensorboard")
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path / "board")
    accelerator.init_trackers("overlaps")
    log_table(accelerator, table, step=7)
    log_continual(accelerator, run_folder)
    accelerator.end_training()
    found = scalars_in(tmp_path / "board")
    assert found["raw/pooled/films/food"] == {7: pytest.approx(table.pooled[0, 1])}
    assert any(name.startswith("learning/classic/seed-0/") for name in found)

    trainer = trainer_of(tiny_model(), tmp_path / "run", report_to="tensorboard", logging_steps=2)
    rows = trainer.data_collator(trainer.train_dataset)
    trainer.add_callback(OverlapCallback(trainer, [rows], every=2))
    trainer.train()
    expected = {e["step"]: e["fisher_overlap"] for e in trainer.state.log_history if "fisher_overlap" in e}
    assert scalars_in(tmp_path / "run")["train/fisher_overlap"] == {
        step: pytest.approx(value) for step, value in expected.items()
    }
    assert set(expected) == {0, 2, 4}
