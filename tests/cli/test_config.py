"""--config and run: a file says what options say, what is typed wins, and what is unknown or dangerous is refused."""

import os

import pytest
import yaml

from commonweight.base.errors import UsageError
from commonweight.cli.config import read_config


@pytest.fixture
def asked(place, tmp_path):
    return {
        "command": "compare",
        "models": [f"a={place / 'one'}", f"b={place / 'two'}"],
        "data": [f"m={place / 'films.jsonl'}"],
        "examples": 20,
        "folds": 2,
        "no-report": True,
        "output": str(tmp_path / "run"),
    }


def written(tmp_path, asked):
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump(asked))
    return file


def test_a_file_is_run_and_kept_and_run_again(cli, tmp_path, asked, monkeypatch):
    first = cli("run", written(tmp_path, asked))
    assert first.code == 0, first.err
    kept = read_config(tmp_path / "run" / "config.yaml")
    assert {key: kept[key.replace("-", "_")] for key in asked} == asked
    assert not (tmp_path / "run" / "report.html").exists()
    again = cli("run", tmp_path / "run" / "config.yaml")
    assert (again.code, again.out) == (0, first.out)
    assert "0 footprints measured, 2 were there" in again.err
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "0")
    quiet = cli("run", tmp_path / "run" / "config.yaml", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, first.out, "")
    assert os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] == "1"  # read when datasets is imported


def test_what_is_typed_wins(cli, tmp_path, asked):
    file = written(tmp_path, asked)
    assert cli("run", file).code == 0
    refused = cli("compare", "--config", file, "--folds", "3")
    assert refused.code == 2
    assert "settings.folds was 2, is now 3" in refused.err


def test_commands_without_a_folder_of_their_own_take_a_file_too(cli, place, footprints, tmp_path):
    folders = [str(footprints / name) for name in ("one", "two")]
    file = written(tmp_path, {"command": "overlap", "folders": folders, "no-intervals": True})
    assert cli("run", file).out == cli("overlap", *folders, "--no-intervals").out != cli("overlap", *folders).out
    file = written(tmp_path, {"model": str(place / "one"), "data": str(place / "films.jsonl"), "label-column": "nope"})
    refused = cli("verify", "--config", file)
    assert (refused.code, "--label-column 'nope' is no column of films" in refused.err) == (2, True)
    assert "--config" not in cli("show", "-h").out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fols": 2}, "no option 'fols'; did you mean 'folds'?"),
        ({"report": False}, "no option 'report'; did you mean 'no-report'?"),
        ({"trust-remote-code": True}, "--trust-remote-code lets code of others run; type it"),
        ({"folds": "many"}, "'many' is not a whole number"),
        ({"folds": [1, 2]}, "folds takes one value, got a list"),
        ({"models": {"a": "one"}}, "models takes one value, got a dict"),
        ({"command": None}, "names no command"),
        ({"command": "show"}, "commonweight show is no command that takes options from a file"),
        ({"command": "comprae"}, "commonweight comprae is no command that takes"),
    ],
)
def test_what_a_file_cannot_say(cli, tmp_path, asked, change, said):
    refused = cli("run", written(tmp_path, asked | change))
    assert (refused.code, refused.out) == (2, "")
    assert said in " ".join(refused.err.split())
    assert not (tmp_path / "run").exists()


def test_what_is_no_such_file(tmp_path):
    for text in ("- a", "a: [", ""):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UsageError, match=r"x\.yaml"):
            read_config(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_a_switch_that_turns_off_is_kept_as_it_is_typed(cli, tmp_path):
    run = tmp_path / "c"
    small = ("--data", "digits", "--scenario", "rotated", "--tasks", "1", "--rows", "40", "--hidden", "4")
    small += ("--approach", "classic", "--inference", "none")
    assert cli("continual", "run", *small, "--drop-scores", "-o", run).code == 0
    kept = read_config(run / "config.yaml")
    assert (kept["command"], kept["drop_scores"], kept["hidden"]) == ("continual run", True, [4])
    assert cli("run", run / "config.yaml").code == 0
