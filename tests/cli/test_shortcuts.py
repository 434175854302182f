"""How the words of ``commonweight shortcuts`` are read."""

import pytest

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
