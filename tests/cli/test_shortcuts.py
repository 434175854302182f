"""How the words of ``commonweight shortcuts`` are read."""

import re
from pathlib import Path

import pytest
import torch
from studies.shortcut_texts import tiny_plan
from transformers import AutoModelForSequenceClassification

from commonweight.cli.shortcuts import command
from commonweight.data.reviews import LABELS
from commonweight.studies.shortcuts.start import make_start


@pytest.mark.parametrize(
    "words",
    [
        ["--shortcuts", "st", "op", "or", "--seeds", "2"],
        ["--shortcuts=st", "op", "or", "--seeds=2"],
        ["--seeds", "2", "--shortcuts", "st,op", "or"],
        ["--shortcuts=st,op,or", "--seeds", "2"],
    ],
)
def test_shortcuts_are_several_words_in_either_form(words):
    found = command.commands["build"].make_context("build", [*words, "-o", "run"]).params
    assert found["shortcuts"] == "st,op,or"
    assert (found["seeds"], found["output"]) == (2, "run")


def test_a_word_that_belongs_to_nothing_is_refused(cli):
    found = cli("shortcuts", "build", "-o", "run", "op")
    assert found.code == 2
    assert "unexpected extra argument (op)" in found.err
    found = cli("shortcuts", "build", "--shortcuts", "-o", "run")
    assert found.code == 2


def test_errors_of_the_plan_name_options(cli, tmp_path):
    found = cli("shortcuts", "run", "--model", "m", "--data", "d", "--path-points", "1", "-o", tmp_path / "run")
    assert found.code == 2
    assert "--path-points must be at least 2, the two ends; got 1" in found.err


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    run = tmp_path / "run"
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op"]
    found = cli("shortcuts", "run", *words, "--seeds", "2", "-o", run, "--dry-run")
    assert found.code == 0, found.err
    assert "Footprints to measure (60; the first 40)" in found.out
    assert "models and their training" in found.out
    assert not run.exists()
    assert cli("shortcuts", "run", *words, "--text-column", "absent", "-o", run, "--dry-run").code == 2
    found = cli("shortcuts", "run", *words, "--train-rows", "300", "-o", run, "--dry-run")
    assert found.code == 2
    assert "--train-rows must lie in 1..240, the rows that are left to train on; got 300" in found.err
    assert not run.exists()


def test_a_dry_run_says_what_it_finds_of_existing_models(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    make_start(plan.model, LABELS, 0, tmp_path / "drawn", plan.preset)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "drawn")
    torch.nn.init.normal_(model.classifier.weight, std=0.02)
    model.save_pretrained(tmp_path / "drawn")
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run", "--dry-run"]
    found = cli("shortcuts", "run", *words, "--existing", f"st={tmp_path / 'drawn'}")
    assert found.code == 0, found.err
    assert "has matrices unlike those of the common start" in found.err
    found = cli("shortcuts", "run", *words, "--existing", f"st={plan.model}")
    assert (found.code, found.out) == (2, "")
    assert "the existing model" in found.err


def test_texts_are_not_longer_than_the_encoder_reads(cli, tmp_path):
    plan = tiny_plan(tmp_path)
    words = ["--model", plan.model, "--data", plan.data, "--shortcuts", "st", "op", "-o", tmp_path / "run", "--dry-run"]
    found = cli("shortcuts", "run", *words, "--max-length", "128")
    assert "--max-length 128 is more than the model can read; give at most 24" in found.err
    found = cli("shortcuts", "run", *words, "--preset", "published")  # its 512 are asked for, too
    assert "--max-length 512 is more than the model can read" in found.err


def test_the_try_out_of_the_docs_can_be_copied(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "shortcuts.md").read_text(encoding="utf-8")
    made = next(block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "make_start" in block)
    exec(compile(made, "shortcuts.md", "exec"), {})
    (typed,) = re.findall(r"```\n(commonweight shortcuts run --model try.*?)```", page, flags=re.DOTALL)
    found = cli(*typed.replace("\\\n", " ").split()[1:], "--dry-run")
    assert found.code == 0, found.err
    assert "Footprints to measure (15" in found.out
