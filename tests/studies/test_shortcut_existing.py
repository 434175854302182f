"""Models that are there already: checked when they are taken over, before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from studies.shortcut_texts import tiny_plan
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from commonweight.base import UsageError
from commonweight.base.errors import IntegrityError
from commonweight.data.reviews import LABELS
from commonweight.studies.demo.encoder import make_start as make_model
from commonweight.studies.demo.encoder import make_tokenizer, save
from commonweight.studies.shortcuts import models as adopting
from commonweight.studies.shortcuts import run as running
from commonweight.studies.shortcuts.models import check_existing, make_start
from commonweight.studies.shortcuts.run import run_study, study_outlook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def start_of(seed: int, folder: Path) -> Path:
    save(make_model(seed), make_tokenizer(), folder / f"encoder-{seed}")
    make_start(str(folder / f"encoder-{seed}"), LABELS, 0, folder / f"start-{seed}", "clean")
    return folder / f"start-{seed}"


def trained(start: Path, place: Path, change: Callable | None = None) -> Path:
    """A model near the start."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(start)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * weight.std(unbiased=False) * torch.randn_like(weight))
        if change is not None:
            model = change(model) or model
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(start).save_pretrained(place)
    return place


def without_biases(model: torch.nn.Module) -> None:
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("classifier")}
    save_pretrained = model.save_pretrained
    model.save_pretrained = lambda place: save_pretrained(place, state_dict=kept)


def with_nan(model: torch.nn.Module) -> None:
    model.classifier.bias[0] = float("nan")


def with_another_activation(model: torch.nn.Module) -> None:
    model.config.hidden_act = "relu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: model.to(torch.bfloat16),
            r"is stored as bfloat16 \(.*\), expected float32.*dtype=torch\.float32",
        ),
        (lambda model: model.half(), "is stored as float16"),
        (
            without_biases,
            r"'the shared initialisation' and .* not have the same weights, 2 differences: classifier.*head included",
        ),
        (with_nan, r"holds nan or infinity in classifier\.bias"),
        (
            with_another_activation,
            r"cannot stand beside the shared initialisation: .*hidden_act is gelu in 'the shared initialisation', relu",
        ),
    ],
)
def test_models_that_cannot_stand_beside_the_others(tmp_path: Path, change: Callable, message: str) -> None:
    start = start_of(0, tmp_path)
    given = trained(start, tmp_path / "given", change)
    with pytest.raises(UsageError, match=message):
        check_existing(str(given), start).copy(tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_a_model_of_another_start(tmp_path: Path) -> None:
    start, other = start_of(0, tmp_path), start_of(1, tmp_path)
    with pytest.raises(
        UsageError,
        match=r"comes from another start: the relative distance .* is (0\.[89]|1\.)\d+, expected at most 0\.5",
    ):
        check_existing(str(trained(other, tmp_path / "given")), start)
    said: list[str] = []
    check_existing(str(trained(start, tmp_path / "near")), start, said.append)
    assert said == []


def test_a_head_that_was_drawn_anew_is_said(tmp_path: Path) -> None:
    def draws(model: torch.nn.Module) -> None:
        model.classifier.weight.normal_(std=0.02)

    start = start_of(0, tmp_path)
    said: list[str] = []
    check_existing(str(trained(start, tmp_path / "given", draws)), start, said.append)
    assert [
        s
        for s in said
        if "has matrices unlike those of the shared initialisation, 1 difference: classifier.weight" in s
    ]


def test_all_are_checked_before_any_is_taken_or_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path)
    run_study(tmp_path / "first", plan, until="build")
    start = tmp_path / "first" / "seed-0" / "models" / "start"
    good = trained(start, tmp_path / "good")
    bad = trained(start, tmp_path / "bad", torch.nn.Module.half)
    wrong = replace(plan, shortcuts=("op", "st", "tic"), existing=(("st", str(good)), ("tic", str(bad))))
    monkeypatch.setattr(running, "fine_tune", lambda *_, **__: pytest.fail("trained before the check"))
    with pytest.raises(UsageError, match="is stored as float16"):
        run_study(tmp_path / "run", wrong, until="train")
    models = tmp_path / "run" / "seed-0" / "models"
    assert [place.name for place in models.iterdir()] == ["start"]
    monkeypatch.setattr(running, "fine_tune", lambda *_, **__: None)
    run_study(tmp_path / "run", replace(wrong, existing=(("st", str(good)),)), until="train")  # the corrected plan
    assert json.loads((models / "st" / "config.json").read_text())["model_type"] == "bert"


def test_a_dry_run_checks_them_as_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, run = tiny_plan(tmp_path), tmp_path / "run"
    run_study(tmp_path / "first", plan, until="build")
    start = tmp_path / "first" / "seed-0" / "models" / "start"

    def draws(model: torch.nn.Module) -> None:
        model.classifier.weight.normal_(std=0.02)

    good, drawn = trained(start, tmp_path / "good"), trained(start, tmp_path / "drawn", draws)
    bad = trained(start, tmp_path / "bad", torch.nn.Module.half)
    monkeypatch.setattr(running, "fine_tune", lambda *_, **__: None)
    wrong = replace(plan, existing=(("st", str(good)), ("op", str(bad))))
    right = replace(plan, existing=(("st", str(good)), ("op", str(drawn))))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    foretold: list[str] = []
    with pytest.raises(UsageError, match=f"the existing model {bad} is stored as float16"):
        study_outlook(run, wrong)
    study_outlook(run, right, note=foretold.append)
    assert not run.exists()
    assert not list((tmp_path / "temporary").iterdir())
    said: list[str] = []
    with pytest.raises(UsageError, match=f"the existing model {bad} is stored as float16"):
        run_study(run, wrong, until="train")
    with pytest.raises(UsageError, match=f"the existing model {bad} is stored as float16"):
        study_outlook(run, wrong)  # its start is there
    study_outlook(run, right)  # a corrected plan makes it anew
    run_study(run, right, until="train", note=said.append)
    (unlike,) = foretold
    assert "has matrices unlike those of the shared initialisation, 1 difference: classifier.weight" in unlike
    assert unlike in said
    monkeypatch.setattr(adopting, "check_existing", lambda *_: pytest.fail("it was taken already"))
    study_outlook(run, right)


@pytest.mark.parametrize("ours", [True, False])
def test_classes_that_nobody_named_are_as_transformers_fills_them_in(tmp_path: Path, ours: bool) -> None:
    start = start_of(0, tmp_path)
    model = trained(start, tmp_path / "model")
    for folder in (model, *([start] if ours else [])):
        config = json.loads((folder / "config.json").read_text())
        kept = {key: value for key, value in config.items() if key not in {"id2label", "label2id"}}
        (folder / "config.json").write_text(json.dumps(kept))
    taken = check_existing(str(model), start)
    assert list(taken.config["id2label"].values()) == (["LABEL_0", "LABEL_1"] if ours else list(LABELS))


@pytest.mark.parametrize("text", ["[]", "{", '{"id2label": ["a"]}', '{"num_labels": -1}'])
def test_a_configuration_that_is_none(tmp_path: Path, text: str) -> None:
    start = start_of(0, tmp_path)
    model = trained(start, tmp_path / "model")
    (model / "config.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"config\.json .*copy the checkpoint again"):
        check_existing(str(model), start)
