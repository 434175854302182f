"""How the words of ``commonweight shortcuts`` are read."""

import pytest
from studies.shortcut_texts import tiny_plan

from commonweight.cli.shortcuts import command


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
    words = [
        "--model",
        plan.model,
        "--data",
        plan.data,
        "--shortcuts",
        "st",
        "op",
        "--max-length",
        str(plan.max_length),
    ]
    found = cli("shortcuts", "run", *words, "--seeds", "2", "-o", run, "--dry-run")
    assert found.code == 0, found.err
    assert "Footprints to measure (60; the first 40)" in found.out
    assert "models and their training" in found.out
    assert not run.exists()
    assert cli("shortcuts", "run", *words, "--text-column", "absent", "-o", run, "--dry-run").code == 2
    assert not run.exists()
